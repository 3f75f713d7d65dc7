package tlsconf

import (
	"context"
	"time"
)

// watch polls the files. Polling, unlike notification, also sees what
// cert-manager does: it swaps a symbolic link of a mounted directory.
func (s *Source) watch(ctx context.Context) {
	defer close(s.done)
	ticker := time.NewTicker(s.o.Poll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			_, _ = s.Poll() // it has logged and counted the error
		}
	}
}

// Poll reads the files once. Changed files are taken when the previous poll
// read the same, so a change takes two polls. It reports whether a new
// generation is in use now, and the error when the files on disk cannot be
// used, which is logged once per content.
func (s *Source) Poll() (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := readFiles(s.config)
	if err != nil {
		s.seen = nil
		return false, s.unreadable(err)
	}
	s.readError = ""
	if f.equal(s.current.Load().files) {
		s.seen, s.refused = nil, nil
		return false, nil
	}
	if s.seen == nil || !f.equal(*s.seen) {
		s.seen = &f
		return false, nil
	}
	return s.take(f)
}

// take makes f the current generation. mu must be held.
func (s *Source) take(f files) (bool, error) {
	m, err := load(s.config, f, s.o.Now())
	if err != nil {
		if s.refused == nil || !f.equal(*s.refused) {
			s.refused = &f
			s.failed(err)
		}
		return false, err
	}
	s.current.Store(m)
	s.seen, s.refused = nil, nil
	s.reloads.Add(1)
	s.o.Logger.Info("took new TLS files", "subject", m.cert.Leaf.Subject.String(), "not_after", m.cert.Leaf.NotAfter)
	if s.o.OnReload != nil {
		s.o.OnReload(nil)
	}
	return true, nil
}

// unreadable notes that a file could not be read. mu must be held.
func (s *Source) unreadable(err error) error {
	if s.readError != err.Error() {
		s.readError = err.Error()
		s.failed(err)
	}
	return err
}

func (s *Source) failed(err error) {
	s.failures.Add(1)
	s.o.Logger.Error("new TLS files cannot be used, the old ones stay in use", "error", err)
	if s.o.OnReload != nil {
		s.o.OnReload(err)
	}
}

// Report tells operators what is in effect.
type Report struct {
	CertFile, KeyFile, CAFile string
	ClientAuth, MinVersion    string
	// CipherSuites as configured; SuitesInUse what a handshake can choose.
	CipherSuites, SuitesInUse []string
	// Notes explain where the two differ.
	Notes []string
	// Of the certificate in use.
	Subject             string
	Serial              string
	NotBefore, NotAfter time.Time
	// Since the start.
	Reloads, ReloadFailures int64
}

// Report returns what is in effect now.
func (s *Source) Report() Report {
	leaf := s.current.Load().cert.Leaf
	r := Report{
		CertFile: s.config.CertFile, KeyFile: s.config.KeyFile, CAFile: s.config.CAFile,
		ClientAuth: s.config.ClientAuth, MinVersion: s.config.MinVersion,
		CipherSuites: s.config.CipherSuites,
		Subject:      leaf.Subject.String(), Serial: leaf.SerialNumber.Text(16),
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		Reloads: s.reloads.Load(), ReloadFailures: s.failures.Load(),
	}
	r.SuitesInUse = s.config.suitesInUse()
	if len(r.CipherSuites) > 0 {
		r.Notes = append(r.Notes, "TLS 1.3 always offers all of its suites; all of them are AEAD. cipher_suites limits TLS 1.2 only.")
	}
	return r
}
