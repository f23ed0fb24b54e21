// Package tlog verifies the audit log of a running vault with Go's implementation of signed notes and Merkle trees, which shares no code with the vault.
package tlog

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// vault is an auditor's connection to a vault that scripts/test-tlog started.
type vault struct {
	t      *testing.T
	url    string
	client *http.Client
}

func connect(t *testing.T) *vault {
	t.Helper()
	url, pki := os.Getenv("KEYVAULT_URL"), os.Getenv("KEYVAULT_PKI")
	if url == "" || pki == "" {
		t.Fatal("KEYVAULT_URL and KEYVAULT_PKI are not set: run scripts/test-tlog")
	}
	certificate, err := tls.LoadX509KeyPair(filepath.Join(pki, "auditor.pem"), filepath.Join(pki, "auditor.key"))
	check(t, err)
	ca, err := os.ReadFile(filepath.Join(pki, "ca.pem"))
	check(t, err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("ca.pem has no certificate")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, RootCAs: roots}}
	return &vault{t: t, url: url, client: &http.Client{Transport: transport, Timeout: time.Minute}}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (v *vault) send(method, path string) []byte {
	v.t.Helper()
	request, err := http.NewRequest(method, v.url+path, nil)
	check(v.t, err)
	response, err := v.client.Do(request)
	check(v.t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	check(v.t, err)
	if response.StatusCode != http.StatusOK {
		v.t.Fatalf("%s %s: %d: %s", method, path, response.StatusCode, body)
	}
	return body
}

func (v *vault) json(method, path string, answer any) {
	v.t.Helper()
	check(v.t, json.Unmarshal(v.send(method, path), answer))
}

// verifier is the newest verifier key of the log.
func (v *vault) verifier() note.Verifier {
	v.t.Helper()
	var keys struct {
		Items []struct {
			VerifierKey string `json:"verifier_key"`
		}
	}
	v.json("GET", "/v1/audit/verifier-keys", &keys)
	verifier, err := note.NewVerifier(keys.Items[len(keys.Items)-1].VerifierKey)
	check(v.t, err)
	return verifier
}

// tree is what a checkpoint says, after its signature was verified.
func (v *vault) tree(message []byte) tlog.Tree {
	v.t.Helper()
	verifier := v.verifier()
	opened, err := note.Open(message, note.VerifierList(verifier))
	check(v.t, err)
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() || !strings.HasPrefix(lines[3], "state-chain ") {
		v.t.Fatalf("not a checkpoint of this log: %q", opened.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(v.t, err)
	root, err := tlog.ParseHash(lines[2])
	check(v.t, err)
	return tlog.Tree{N: size, Hash: root}
}

// makeCheckpoint makes a checkpoint over all entries.
func (v *vault) makeCheckpoint() tlog.Tree {
	v.t.Helper()
	var answer struct{ Note string }
	v.json("POST", "/v1/audit/checkpoints", &answer)
	return v.tree([]byte(answer.Note))
}

func hashes(t *testing.T, encoded []string) []tlog.Hash {
	t.Helper()
	var all []tlog.Hash
	for _, text := range encoded {
		hash, err := tlog.ParseHash(text)
		check(t, err)
		all = append(all, hash)
	}
	return all
}

// fill writes entries until the log is longer than one tile.
func (v *vault) fill() {
	for range 300 {
		v.send("GET", "/v1/audit/entries?limit=1")
	}
}

func TestCheckpointIsASignedNote(t *testing.T) {
	v := connect(t)
	made := v.makeCheckpoint()
	message := v.send("GET", "/v1/audit/tlog/checkpoint")
	if served := v.tree(message); served != made {
		t.Fatalf("the checkpoint is %v, and the tiles have %v", made, served)
	}
	changed := bytes.Replace(message, []byte("\n"), []byte("x\n"), 1)
	if _, err := note.Open(changed, note.VerifierList(v.verifier())); err == nil {
		t.Fatal("a changed checkpoint was accepted")
	}
}

func TestProofs(t *testing.T) {
	v := connect(t)
	v.fill()
	older := v.makeCheckpoint()
	v.fill()
	newer := v.makeCheckpoint()
	for _, sequence := range []int64{1, 2, 255, 256, 257, older.N, newer.N} {
		var answer struct {
			Leaf  string
			Proof []string
		}
		v.json("GET", fmt.Sprintf("/v1/audit/proofs/inclusion?sequence=%d&size=%d", sequence, newer.N), &answer)
		leaf, proof := hashes(t, []string{answer.Leaf})[0], tlog.RecordProof(hashes(t, answer.Proof))
		if err := tlog.CheckRecord(proof, newer.N, newer.Hash, sequence-1, leaf); err != nil {
			t.Fatalf("entry %d: %v", sequence, err)
		}
		if tlog.CheckRecord(proof, newer.N, newer.Hash, sequence-1, newer.Hash) == nil {
			t.Fatalf("entry %d: a proof of another leaf was accepted", sequence)
		}
	}
	var answer struct{ Proof []string }
	v.json("GET", fmt.Sprintf("/v1/audit/proofs/consistency?from=%d&size=%d", older.N, newer.N), &answer)
	proof := tlog.TreeProof(hashes(t, answer.Proof))
	check(t, tlog.CheckTree(proof, newer.N, newer.Hash, older.N, older.Hash))
	if tlog.CheckTree(proof, newer.N, newer.Hash, older.N, newer.Hash) == nil {
		t.Fatal("a proof of another tree was accepted")
	}
}

// tiles reads the tiles of a vault. A path of tlog begins with the height, which C2SP tlog-tiles has fixed to 8.
type tiles struct {
	v    *vault
	read map[string]bool
}

func path(tile tlog.Tile) string {
	path := strings.TrimPrefix(tile.Path(), "tile/8/")
	return "/v1/audit/tlog/tile/" + strings.Replace(path, "data/", "entries/", 1)
}

func (r *tiles) Height() int { return 8 }

func (r *tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range wanted {
		all = append(all, r.v.send("GET", path(tile)))
		r.read[path(tile)] = true
	}
	return all, nil
}

func (r *tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func TestTiles(t *testing.T) {
	v := connect(t)
	v.fill()
	older := v.makeCheckpoint()
	v.fill()
	newer := v.makeCheckpoint()
	reader := &tiles{v, map[string]bool{}}
	// The reader verifies each tile against the root of the checkpoint.
	stored := tlog.TileHashReader(newer, reader)
	root, err := tlog.TreeHash(older.N, stored)
	check(t, err)
	if root != older.Hash {
		t.Fatal("the tiles give another root than the older checkpoint has")
	}
	proof, err := tlog.ProveTree(newer.N, older.N, stored)
	check(t, err)
	check(t, tlog.CheckTree(proof, newer.N, newer.Hash, older.N, older.Hash))

	// Each entry of the log, from the bundles, against the leaves of the tree.
	var indexes []int64
	for number := range newer.N {
		indexes = append(indexes, tlog.StoredHashIndex(0, number))
	}
	leaves, err := stored.ReadHashes(indexes)
	check(t, err)
	var number int64
	for bundle := int64(0); number < newer.N; bundle++ {
		width := min(newer.N-number, 256)
		data := v.send("GET", path(tlog.Tile{H: 8, L: -1, N: bundle, W: int(width)}))
		for len(data) > 0 {
			length := int(binary.BigEndian.Uint16(data))
			entry := data[2 : 2+length]
			data = data[2+length:]
			if tlog.RecordHash(entry) != leaves[number] {
				t.Fatalf("entry %d is not its leaf", number+1)
			}
			var content struct{ Sequence int64 }
			check(t, json.Unmarshal(entry, &content))
			if number++; content.Sequence != number {
				t.Fatalf("entry %d has the number %d", number, content.Sequence)
			}
		}
	}
	if len(reader.read) < 3 {
		t.Fatalf("too few tiles to show anything: %v", reader.read)
	}

	// The reads of all tiles are one entry in a minute.
	var log struct {
		Items []json.RawMessage
	}
	v.json("GET", "/v1/audit/entries?operation=audit.read-tiles&limit=100", &log)
	if len(log.Items) == 0 || len(log.Items) > 5 {
		t.Fatalf("%d entries for the reads of tiles", len(log.Items))
	}
}

// TestFilesOfTheCommandLine verifies a checkpoint and a verifier key that the command line wrote.
func TestFilesOfTheCommandLine(t *testing.T) {
	checkpoint, err := os.ReadFile(os.Getenv("KEYVAULT_CHECKPOINT"))
	check(t, err)
	keys, err := os.ReadFile(os.Getenv("KEYVAULT_KEYS"))
	check(t, err)
	lines := strings.Split(strings.TrimSpace(string(keys)), "\n")
	verifier, err := note.NewVerifier(lines[len(lines)-1])
	check(t, err)
	_, err = note.Open(checkpoint, note.VerifierList(verifier))
	check(t, err)
	if _, err := base64.StdEncoding.DecodeString(strings.Split(string(checkpoint), "\n")[2]); err != nil {
		t.Fatal(err)
	}
}
