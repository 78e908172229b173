package front

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

func TestSniff(t *testing.T) {
	for _, test := range []struct {
		name   string
		writes []string
		http2  bool
	}{
		{"get", []string{"GET / HTTP/1.1\r\n"}, false},
		{"put differs at the second byte", []string{"PUT"}, false},
		{"propfind differs at the third", []string{"P", "R", "O"}, false},
		{"preface", []string{preface}, true},
		{"preface byte by byte", strings.Split(preface, ""), true},
		{"preface and more", []string{preface + "frames"}, true},
		{"not quite the preface", []string{preface[:20] + "x"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			go func() {
				for _, w := range test.writes {
					theirs.Write([]byte(w))
				}
				theirs.Close()
			}()
			read, http2, err := sniff(ours)
			if err != nil || http2 != test.http2 {
				t.Fatalf("http2 %t, %v", http2, err)
			}
			all, err := io.ReadAll(&replay{Conn: ours, read: read})
			if want := strings.Join(test.writes, ""); err != nil || string(all) != want {
				t.Errorf("the server reads %q, %v; want %q", all, err, want)
			}
		})
	}
}

func TestSniffCut(t *testing.T) {
	ours, theirs := net.Pipe()
	go func() {
		theirs.Write([]byte("PRI"))
		theirs.Close()
	}()
	if _, _, err := sniff(ours); !errors.Is(err, io.EOF) {
		t.Errorf("error %v, want EOF", err)
	}
}
