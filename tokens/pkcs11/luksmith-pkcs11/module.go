//go:build cgo

package main

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>

// probe says why a module cannot be used, or returns NULL. The handle is kept:
// the module is going to be loaded anyway.
static const char *probe(const char *path) {
	void *handle = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
	if (handle == NULL)
		return dlerror();
	return dlsym(handle, "C_GetFunctionList") == NULL ? "it is not a PKCS#11 module" : NULL;
}
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/miekg/pkcs11"

	"luksmith/internal/helper"
	"luksmith/tokens/pkcs11/wire"
)

// session is everything that is open. Its methods answer one request each.
type session struct {
	module   *pkcs11.Ctx
	sessions map[uint]pkcs11.SessionHandle // by slot
}

// load loads the module at path, or p11-kit's proxy if path is empty.
func (s *session) load(path string) error {
	if s.module != nil {
		return &helper.Error{Code: wire.CodeFailed, Message: "a module is open already"}
	}
	if path == "" {
		path = wire.Proxy
	} else {
		var err error
		if path, err = checkFile(path); err != nil {
			return &helper.Error{Code: wire.CodeModule, Message: err.Error()}
		}
	}
	if reason := probe(path); reason != "" {
		return &helper.Error{Code: wire.CodeModule, Message: fmt.Sprintf("loading PKCS#11 module %s: %s", path, reason)}
	}
	module := pkcs11.New(path)
	if module == nil {
		return &helper.Error{Code: wire.CodeModule, Message: "loading PKCS#11 module " + path}
	}
	if err := initialize(module); err != nil {
		return failure("starting PKCS#11 module "+path, err)
	}
	s.module, s.sessions = module, map[uint]pkcs11.SessionHandle{}
	return nil
}

func probe(path string) string {
	cPath := C.CString(path)
	defer C.free(unsafe.Pointer(cPath))
	if reason := C.probe(cPath); reason != nil {
		return C.GoString(reason)
	}
	return ""
}

// initialize calls C_Initialize. A module that cannot lock is told that nobody
// else calls it, which is true.
func initialize(module *pkcs11.Ctx) error {
	err := module.Initialize()
	if is(err, pkcs11.CKR_CANT_LOCK) || is(err, pkcs11.CKR_NEED_TO_CREATE_THREADS) {
		err = module.Initialize(pkcs11.InitializeWithFlags(0))
	}
	if is(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		err = nil
	}
	return err
}

// close implements wire.MethodClose.
func (s *session) close(context.Context, *helper.Request) (*helper.Reply, error) {
	s.finish()
	return nil, nil
}

// finish ends what is open, so that a card forgets that the PIN was right and is
// in good order for the next program.
func (s *session) finish() {
	if s.module == nil {
		return
	}
	for _, handle := range s.sessions {
		_ = s.module.Logout(handle) // also reports sessions that never were logged in
		_ = s.module.CloseSession(handle)
	}
	_ = s.module.Finalize()
	s.module, s.sessions = nil, nil
}

// checkFile refuses a module that somebody else than the administrator could have
// put there: see [helper.Trusted].
func checkFile(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("PKCS#11 module %q: the path is not absolute", path)
	}
	real, err := helper.Trusted(path)
	if err != nil {
		return "", fmt.Errorf("PKCS#11 module %s: %w", path, err)
	}
	return real, nil
}

// is reports whether err is the given CKR_ code.
func is(err error, code uint) bool {
	var e pkcs11.Error
	return errors.As(err, &e) && uint(e) == code
}

// failure turns the error of a module into one for the handler. doing is a gerund.
func failure(doing string, err error) error {
	var e pkcs11.Error
	if !errors.As(err, &e) {
		return err
	}
	return &helper.Error{Code: codeOf(e), Message: doing + ": " + name(e), Data: map[string]int{"rv": int(uint32(e))}}
}

func codeOf(e pkcs11.Error) string {
	switch e {
	case pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_SLOT_ID_INVALID,
		pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_TOKEN_NOT_RECOGNIZED:
		return wire.CodeNotPresent
	case pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKR_PIN_INVALID:
		return wire.CodeWrongPIN
	case pkcs11.CKR_PIN_LOCKED:
		return wire.CodePINLocked
	}
	return wire.CodeFailed
}

// name is the code's name in the specification, as far as the library knows it.
func name(e pkcs11.Error) string {
	text := strings.TrimPrefix(e.Error(), "pkcs11: ")
	if _, word, ok := strings.Cut(text, ": "); ok && word != "" {
		return word
	}
	return fmt.Sprintf("error %#x", uint(e))
}
