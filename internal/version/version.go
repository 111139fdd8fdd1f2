// Package version holds the one version number of all programs of the project.
package version

// Version is that of the commands and their helper programs, which only work
// together when it is the same.
const Version = "0.1.0"
