package config

// Limits of what is read. A document beyond them is refused before it is looked at
// closely.
const (
	MaxText     = 1 << 20  // bytes of a cloud-config document; vendors pass on 16 to 256 KiB
	MaxUnpacked = 16 << 20 // bytes of user data after all unpacking, or of all contents of a document
	MaxTokens   = 50_000   // keys, values and signs of a document: reading takes their square
	MaxDepth    = 40       // lists and mappings inside each other; the schema needs 7
	MaxBlank    = 200      // empty lines in a row: reading multiplies them with the text before
	MaxParts    = 64       // parts of user data, or of a broken document
	MaxNesting  = 4        // of multiparts and gzip inside each other
)
