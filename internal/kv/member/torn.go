package member

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"

	"flotilla/internal/fault"
)

// tear is the end of a log whose last record was not written whole: the machine
// lost power. The engine cuts it off when it starts, which loses nothing that
// anybody was told is safe, and keeps a copy of the file beside it.
type tear struct {
	file   string
	offset int64 // of the record
}

// tornTail looks at the last segment of the log; nil when it ends whole, or is
// damaged otherwise: that the engine will find.
func tornTail(segments []string) (*tear, error) {
	if len(segments) == 0 {
		return nil, nil
	}
	file := segments[len(segments)-1]
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("look at the end of the log: %w", err)
	}
	defer f.Close()
	dec := wal.NewDecoder(fileutil.NewFileReader(f))
	for {
		var rec walpb.Record
		offset := dec.LastOffset()
		err := dec.Decode(&rec)
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return &tear{file: file, offset: offset}, nil
		case err != nil:
			return nil, nil
		case rec.GetType() == wal.CrcType:
			dec.UpdateCRC(rec.GetCrc())
		}
	}
}

// damaged adds what to do to the error of an engine that cannot read its log.
func damaged(err error, text, name string) error {
	if !strings.Contains(text, "crc mismatch") && !strings.Contains(text, "WAL") && !strings.Contains(text, "wal:") {
		return nil
	}
	return fault.Hint(fmt.Errorf("the log is damaged, and nothing was changed: %w", err),
		"if others of the cluster are well: remove member %s there, add it anew, and start it with an empty data directory; if it is the last one, try a copy of the directory with 'etcd recover'", name)
}
