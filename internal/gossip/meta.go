package gossip

import (
	"encoding/binary"
	"fmt"
	"net"
	"strconv"

	"github.com/hashicorp/memberlist"

	"kvstore/internal/fault"
)

// Health says whether a node serves, and if not, roughly why. Values that this
// version does not know are not ready.
type Health uint8

// The values of Health.
const (
	HealthUnknown  Health = 0 // it has not said yet
	HealthReady    Health = 1
	HealthStarting Health = 2 // founding, joining, or learning the metadata
	HealthStorage  Health = 3 // its storage failed
	HealthGroups   Health = 4 // some group confirms no reads
)

var healthNames = [...]string{"unknown", "ready", "starting", "storage failed", "groups do not answer"}

func (h Health) String() string {
	if int(h) < len(healthNames) {
		return healthNames[h]
	}
	return "not ready (" + strconv.Itoa(int(h)) + ")"
}

// Meta is what a node says about itself. It is a claim, checked for its form
// only.
type Meta struct {
	// Name and Zone are at most 63 bytes of a-z A-Z 0-9 - _ . each; Zone may be
	// empty.
	Name, Zone string
	// Version is the build, at most 64 bytes.
	Version string
	// Addresses, host:port each, at most 261 bytes. Gossip and Peer are needed;
	// GRPC and HTTP are left out when all together are too long.
	Gossip, Peer, GRPC, HTTP string
	// Started tells lives of the process apart: Unix milliseconds.
	Started int64
	Health  Health
	// Load is the part of its request slots that is in use, in percent.
	Load uint8
	// Witness: it votes and has no data.
	Witness bool
	// Leads is the number of groups it leads.
	Leads uint32
	// Epoch is that of its slot map.
	Epoch uint64
}

// metaVersion begins every encoded Meta: version, hash of the cluster's id (8
// bytes, big endian), Health, Load, then varints (Started, Leads, Epoch), then
// strings with the length before them (Name, Zone, Version, Gossip, Peer, GRPC,
// HTTP), then flags (1 byte, 0 when it is not there: 1 for Witness). Readers ignore what follows, so that fields can be added at the end
// without a new version.
const (
	metaVersion = 1
	metaWitness = 1
	metaFixed   = 1 + 8 + 1 + 1

	maxNameBytes    = 63
	maxVersionBytes = 64
	maxAddressBytes = 255 + 1 + 5
	maxLeads        = 1 << 16
	maxLoad         = 100
)

// encode fails when a field is not valid, or when the fields that are needed do
// not fit into memberlist's bound.
func (m Meta) encode(cluster uint64) ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	b := m.append(cluster)
	if len(b) > memberlist.MetaMaxSize {
		m.GRPC, m.HTTP = "", ""
		b = m.append(cluster)
	}
	if len(b) > memberlist.MetaMaxSize {
		return nil, fault.New(fault.InvalidArgument, "name, zone, version and addresses of this node are too long to be gossiped",
			"limit", memberlist.MetaMaxSize, "actual", len(b))
	}
	return b, nil
}

func (m Meta) append(cluster uint64) []byte {
	b := make([]byte, 0, memberlist.MetaMaxSize)
	b = append(b, metaVersion)
	b = binary.BigEndian.AppendUint64(b, cluster)
	b = append(b, byte(m.Health), m.Load)
	b = binary.AppendUvarint(b, uint64(m.Started))
	b = binary.AppendUvarint(b, uint64(m.Leads))
	b = binary.AppendUvarint(b, m.Epoch)
	for _, s := range []string{m.Name, m.Zone, m.Version, m.Gossip, m.Peer, m.GRPC, m.HTTP} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	if m.Witness {
		return append(b, metaWitness)
	}
	return append(b, 0)
}

// decodeMeta reads what encode wrote, or refuses it; nothing of b is kept.
func decodeMeta(b []byte) (m Meta, cluster uint64, err error) {
	if len(b) > memberlist.MetaMaxSize || len(b) < metaFixed {
		return Meta{}, 0, malformed("length", len(b))
	}
	if b[0] != metaVersion {
		return Meta{}, 0, malformed("format version", b[0])
	}
	cluster = binary.BigEndian.Uint64(b[1:])
	m.Health, m.Load = Health(b[9]), b[10]
	rest := b[metaFixed:]
	var started, leads uint64
	for _, n := range []*uint64{&started, &leads, &m.Epoch} {
		if *n, rest, err = takeNumber(rest); err != nil {
			return Meta{}, 0, err
		}
	}
	if started > 1<<62 || leads > maxLeads {
		return Meta{}, 0, malformed("number", max(started, leads))
	}
	m.Started, m.Leads = int64(started), uint32(leads)
	for _, s := range []*string{&m.Name, &m.Zone, &m.Version, &m.Gossip, &m.Peer, &m.GRPC, &m.HTTP} {
		if *s, rest, err = takeText(rest); err != nil {
			return Meta{}, 0, err
		}
	}
	m.Witness = len(rest) > 0 && rest[0]&metaWitness != 0
	if err := m.check(); err != nil {
		return Meta{}, 0, err
	}
	return m, cluster, nil
}

func takeNumber(b []byte) (uint64, []byte, error) {
	n, size := binary.Uvarint(b)
	if size <= 0 {
		return 0, nil, malformed("number at the end", len(b))
	}
	return n, b[size:], nil
}

func takeText(b []byte) (string, []byte, error) {
	n, rest, err := takeNumber(b)
	if err != nil {
		return "", nil, err
	}
	if n > uint64(len(rest)) {
		return "", nil, malformed("length of a text", n)
	}
	return string(rest[:n]), rest[n:], nil
}

func malformed(what string, actual any) error {
	return fault.New(fault.InvalidArgument, "malformed "+what+" in what a member says about itself", "actual", fmt.Sprintf("%.80q", fmt.Sprint(actual)))
}

// check judges the form of all fields.
func (m Meta) check() error {
	switch {
	case m.Name == "" || !plain(m.Name, maxNameBytes):
		return malformed("name", m.Name)
	case !plain(m.Zone, maxNameBytes):
		return malformed("zone", m.Zone)
	case !printable(m.Version, maxVersionBytes):
		return malformed("version", m.Version)
	case m.Load > maxLoad:
		return malformed("load", m.Load)
	case m.Started < 0:
		return malformed("start", m.Started)
	case m.Leads > maxLeads:
		return malformed("number of groups", m.Leads)
	case m.Gossip == "" || m.Peer == "":
		return malformed("address", "")
	}
	for _, a := range []string{m.Gossip, m.Peer, m.GRPC, m.HTTP} {
		if a != "" && !isAddress(a) {
			return malformed("address", a)
		}
	}
	return nil
}

// plain allows what configuration allows for names.
func plain(s string, most int) bool {
	if len(s) > most {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

func printable(s string, most int) bool {
	if len(s) > most {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// isAddress reports whether a is host:port with a port that can be sent to.
func isAddress(a string) bool {
	if !printable(a, maxAddressBytes) {
		return false
	}
	host, port, err := net.SplitHostPort(a)
	if err != nil || host == "" {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}
