package cli

import "os"

// UTF8 reports whether the locale uses UTF-8, so that half blocks and the like can
// be printed.
func UTF8() bool { return utf8Locale(os.Getenv) }
