#!/bin/sh
# Says what helps in the shell that comes next.
[ ! -x /usr/lib/luksmith/cryptsetup-unit ] || warn "luksmith: /usr/lib/luksmith/cryptsetup-unit status lists the volumes; … attach NAME asks again"
