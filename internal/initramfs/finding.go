package initramfs

// Finding is the verdict about one part of an image.
type Finding struct {
	Part   string `json:"part"`
	OK     bool   `json:"ok"`
	What   string `json:"what"`
	Remedy string `json:"remedy,omitempty"`
}

// Verdict is what luksmith-initrd prints as JSON.
type Verdict struct {
	OK    bool      `json:"ok"`
	Parts []Finding `json:"parts"`
}
