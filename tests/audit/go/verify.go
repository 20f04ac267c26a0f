// Verifies an exported log with the Go project's own packages for checksum databases.
//
//	go run verify.go DIR LOG-VKEY [WITNESS-VKEY...]
//
// The checkpoint and its cosignatures go through sumdb/note, tiles, proofs and roots through sumdb/tlog. Prints
// "verified SIZE ROOT COSIGNATURES". It needs golang.org/x/mod (Debian: golang-golang-x-mod-dev).
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if len(os.Args) < 3 {
		fail(errors.New("usage: verify DIR LOG-VKEY [WITNESS-VKEY...]"))
	}
	dir := os.Args[1]
	log, err := note.NewVerifier(os.Args[2])
	fail(err)
	known := []note.Verifier{log}
	for _, text := range os.Args[3:] {
		w, err := newWitness(text)
		fail(err)
		known = append(known, w)
	}
	signed, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	fail(err)
	n, err := note.Open(signed, note.VerifierList(known...))
	fail(err)
	byLog, cosigned := 0, 0
	for _, sig := range n.Sigs {
		if sig.Name == log.Name() && sig.Hash == log.KeyHash() {
			byLog++
		} else {
			cosigned++
		}
	}
	if byLog != 1 {
		fail(errors.New("not signed by the log"))
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) != 4 || lines[0] != log.Name() || lines[3] != "" {
		fail(errors.New("checkpoint text"))
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	fail(err)
	root, err := tlog.ParseHash(lines[2])
	fail(err)
	tree := tlog.Tree{N: size, Hash: root}
	reader := tlog.TileHashReader(tree, &tiles{dir})
	leaves := 0
	for bundle := int64(0); bundle*256 < size; bundle++ {
		width := min(256, size-bundle*256)
		data, err := os.ReadFile(filepath.Join(dir, path("entries", bundle, width)))
		fail(err)
		for i := int64(0); i < width; i++ {
			if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
				fail(errors.New("entry bundle cut off"))
			}
			length := 2 + int(binary.BigEndian.Uint16(data))
			index := bundle*256 + i
			proof, err := tlog.ProveRecord(size, index, reader)
			fail(err)
			fail(tlog.CheckRecord(proof, size, root, index, tlog.RecordHash(data[2:length])))
			data = data[length:]
			leaves++
		}
		if len(data) != 0 {
			fail(errors.New("bytes after the last entry"))
		}
	}
	if int64(leaves) != size {
		fail(errors.New("number of entries"))
	}
	for old := int64(1); old <= size; old += 1 + old/7 {
		hash, err := tlog.TreeHash(old, reader)
		fail(err)
		proof, err := tlog.ProveTree(size, old, reader)
		fail(err)
		fail(tlog.CheckTree(proof, size, root, old, hash))
	}
	fmt.Printf("verified %d %s %d\n", size, root, cosigned)
}

// tiles reads a folder laid out as C2SP tlog-tiles: as in Go's checksum database, but without the height in the path.
type tiles struct{ dir string }

func (t *tiles) Height() int { return 8 }

func (t *tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range wanted {
		data, err := os.ReadFile(filepath.Join(t.dir, path(strconv.Itoa(tile.L), tile.N, int64(tile.W))))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func (t *tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func path(level string, n, width int64) string {
	number := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		number = fmt.Sprintf("x%03d/%s", n%1000, number)
	}
	if width < 256 {
		number += fmt.Sprintf(".p/%d", width)
	}
	return "tile/" + level + "/" + number
}

// witness verifies Ed25519 cosignatures (C2SP tlog-cosignature), which sumdb/note does not know.
type witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newWitness(vkey string) (*witness, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("malformed witness key")
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 33 || key[0] != 4 {
		return nil, errors.New("malformed witness key")
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	if parts[1] != fmt.Sprintf("%x", sum[:4]) {
		return nil, errors.New("witness key hash")
	}
	return &witness{parts[0], binary.BigEndian.Uint32(sum[:4]), key[1:]}, nil
}

func (w *witness) Name() string    { return w.name }
func (w *witness) KeyHash() uint32 { return w.hash }

func (w *witness) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "cosignature/v1\ntime %d\n", binary.BigEndian.Uint64(sig))
	text.Write(msg)
	return ed25519.Verify(w.key, text.Bytes(), sig[8:])
}

func min(a, b int64) int64 {
	if a < b {
		return a
	}
	return b
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
