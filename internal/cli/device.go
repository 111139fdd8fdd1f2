package cli

// WrongDevice makes an error match [ErrWrongDevice] without changing its text.
func WrongDevice(err error) error { return wrongDevice{err} }

type wrongDevice struct{ error }

func (e wrongDevice) Unwrap() []error { return []error{e.error, ErrWrongDevice} }
