package ctl

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
	"kvstore/internal/ctl/recovery"
)

const recoverHelp = `Let the nodes that are left go on when quorums are gone for good.

A group whose quorum is gone takes no reads or writes. When its nodes cannot be
brought back, this makes the best replica that is left the group's only member:
all that is in its log is kept, what only the lost nodes had is lost. The lost
nodes are removed from the cluster for good; with empty data directories they
may join again under their names.

Without --yes nothing is changed: the plan is printed, with the time since which
writes may be lost. Name all nodes that are left with --endpoints; one is enough
where it reaches the others. An interrupted run is finished by running it again.`

// recoverTimeout is the least time that a recovery gets: the meta group elects.
const recoverTimeout = time.Minute

func (a *app) recoverCmd() *cobra.Command {
	var yes, dry bool
	cmd := &cobra.Command{
		Use: "recover", Short: "Go on with the nodes that are left when quorums are gone for good", Long: recoverHelp,
		Example: "  kvctl cluster recover -e 10.0.0.4:8085\n  kvctl cluster recover -e 10.0.0.4:8085 --yes",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if yes && dry {
				return usagef("--yes and --dry-run exclude each other")
			}
			return a.recoverCluster(cmd.Context(), yes, dry)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "act without asking")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only print the plan (default, unless the cluster's name is typed when asked)")
	return cmd
}

func (a *app) recoverCluster(ctx context.Context, yes, dry bool) error {
	nodes, err := a.survivors()
	if err != nil {
		return err
	}
	defer nodes.close()
	answers, err := nodes.ask(ctx)
	if err != nil {
		return err
	}
	plan, err := recovery.Make(answers, time.Now())
	if err != nil {
		return codeError{error: err, code: exitRefused}
	}
	if err := a.showRecovery(plan); err != nil || !plan.ToDo() || dry {
		return err
	}
	if plan.Waiting {
		return codeError{error: errors.New("some group may have a leader; run this again in a few seconds, when that is known"), code: exitUnavailable}
	}
	if plan.Groups[0].State == recovery.Gone {
		return codeError{error: errors.New("no replica of the cluster's metadata (group 0) is left; restore a backup"), code: exitRefused}
	}
	if !yes && !a.confirmed(plan.ClusterName) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, max(a.opts.Timeout, recoverTimeout))
	defer cancel()
	if err := recovery.Run(ctx, plan, nodes.step, func(line string) { _, _ = fmt.Fprintln(a.Err, line) }); err != nil {
		return err
	}
	if n := plan.Count(recovery.Gone); n > 0 {
		return codeError{error: fmt.Errorf("nothing is left of %d groups", n), code: exitPartial}
	}
	return nil
}

// confirmed asks for the cluster's name; without a terminal nobody can answer.
func (a *app) confirmed(name string) bool {
	if _, ok := terminal(a.In); !ok {
		_, _ = fmt.Fprintln(a.Err, "nothing was changed; --yes acts")
		return false
	}
	_, _ = fmt.Fprintf(a.Err, "type the cluster's name (%s) to act: ", name)
	line, err := bufio.NewReader(a.In).ReadString('\n')
	if (err == nil || errors.Is(err, io.EOF)) && strings.TrimSpace(line) == name && name != "" {
		return true
	}
	_, _ = fmt.Fprintln(a.Err, "nothing was changed")
	return false
}

// survivors are the nodes to ask: each endpoint has a client of its own.
type survivors struct {
	clients []*client.Client
	// via is the client to reach a node by: its own, or that of one that
	// reaches it.
	via map[string]*client.Client
}

// survivors connects to every endpoint. One that does not answer may be a lost
// node that the context still names: the plan goes by those that do.
func (a *app) survivors() (*survivors, error) {
	cfg, err := a.config()
	if err != nil {
		return nil, err
	}
	s := &survivors{via: map[string]*client.Client{}}
	var silent []error
	for _, endpoint := range a.target.Endpoints {
		one := cfg
		one.Endpoints, one.Gateway = []string{endpoint}, true
		// The context of a client ends it; that of the command is only for calls.
		c, err := client.New(a.base, one)
		if err != nil {
			silent = append(silent, err)
			_, _ = fmt.Fprintf(a.Err, "%s does not answer\n", endpoint)
			continue
		}
		s.clients = append(s.clients, c)
	}
	if len(s.clients) == 0 {
		return nil, errors.Join(silent...)
	}
	return s, nil
}

func (s *survivors) close() {
	for _, c := range s.clients {
		_ = c.Close() // returns nil
	}
}

// ask collects what the nodes say; an error means that none of them answers.
func (s *survivors) ask(ctx context.Context) ([]*api.RecoverNode, error) {
	answers := make([][]*api.RecoverNode, len(s.clients))
	errs := make([]error, len(s.clients))
	var wg sync.WaitGroup
	for i, c := range s.clients {
		wg.Go(func() { answers[i], errs[i] = c.RecoverPlan(ctx) })
	}
	wg.Wait()
	var all []*api.RecoverNode
	for i, nodes := range answers {
		for k, n := range nodes { // the first is the node itself
			if n.GetError() == "" && (k == 0 || s.via[n.GetNodeId()] == nil) {
				s.via[n.GetNodeId()] = s.clients[i]
			}
			all = append(all, n)
		}
	}
	if len(all) == 0 {
		return nil, errors.Join(errs...)
	}
	return all, nil
}

func (s *survivors) step(ctx context.Context, q *api.RecoverRequest) (*api.RecoverResponse, error) {
	c := s.via[q.GetNodeId()]
	if c == nil {
		return nil, codeError{error: fmt.Errorf("node %s does not answer", q.GetNodeId()), code: exitUnavailable}
	}
	return c.Recover(ctx, q)
}

func (a *app) showRecovery(p *recovery.Plan) error {
	switch a.format(formatTable) {
	case formatJSON:
		return a.json(p)
	case formatRaw:
		_, err := fmt.Fprintln(a.Out, p.Epoch)
		return err
	}
	if !p.ToDo() && p.Waiting {
		_, err := fmt.Fprintf(a.Out, "nothing is to be done yet: no quorum of some group of %s answers, but it may have a leader; run this again in a few seconds\n", p.ClusterName)
		return err
	}
	if !p.ToDo() {
		_, err := fmt.Fprintf(a.Out, "nothing is to be done: every group of %s that has a replica has a quorum\n", p.ClusterName)
		return err
	}
	state := ""
	if p.Resumes {
		state = " (begun before)"
	}
	_, _ = fmt.Fprintf(a.Out, "recovery %d of the cluster %s%s\n\n", p.Epoch, p.ClusterName, state)
	var rows [][]string
	for _, n := range p.Nodes {
		fate := "goes on"
		if !n.Survives {
			fate = "is removed for good: " + n.Reason
		}
		rows = append(rows, []string{cmp.Or(n.Name, n.ID), n.ID, fate})
	}
	if err := a.table("NODE ID FATE", rows); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(a.Out)
	rows = nil
	for i := range p.Groups {
		rows = append(rows, recoverRow(&p.Groups[i], p.At))
	}
	if err := a.table("GROUP MEMBERS STATE GOES-ON-ALONE-ON LOST-WRITES", rows); err != nil {
		return err
	}
	return a.recoverNotes(p)
}

func recoverRow(g *recovery.Group, at int64) []string {
	var members []string
	for _, m := range g.Members {
		text := m.Node
		if m.Learner {
			text += " (learner)"
		}
		if m.Witness {
			text += " (witness)"
		}
		if !m.Answers {
			text += " (lost)"
		}
		members = append(members, text)
	}
	row := []string{number(g.Group), strings.Join(members, ", "), string(g.State) + ": " + g.Why, "", "none"}
	switch g.State {
	case recovery.Gone:
		row[4] = "all"
	case recovery.Lost:
		row[3] = g.Survivor.Node
		if !g.LossNone {
			from := fmt.Sprintf("after %s (revision %d)", milli(g.LossFrom), g.LossFromRevision)
			if g.LossFromRevision == 0 {
				from = "all since the group began"
			}
			row[4] = from + ", until " + milli(at)
			if w := g.Witness; w != nil {
				row[4] += fmt.Sprintf("; at most %d entries, up to index %d of term %d, which the witness on %s acknowledged", w.Entries, w.LastIndex, w.LastTerm, w.Node)
			}
			if g.LeaderHeard != 0 {
				row[4] += "; leader last heard " + milli(g.LeaderHeard)
			}
		}
	case recovery.Live:
	}
	return row
}

// recoverNotes says what the tables cannot.
func (a *app) recoverNotes(p *recovery.Plan) error {
	var notes []string
	if p.Count(recovery.Lost) > 0 {
		notes = append(notes, "LOST-WRITES: what lost nodes acknowledged in that time and the survivor has not received. \"none\" is proved.",
			"Every recovered group has one copy until members are added.")
	}
	if n := p.Count(recovery.Gone); n > 0 {
		notes = append(notes, fmt.Sprintf("Nothing is left of %d groups; their keys stay out of reach.", n))
	}
	if p.Shapeless {
		notes = append(notes, "No node that answers knows how many groups there are: name more of them.")
	}
	if p.Waiting {
		notes = append(notes, "Some group may have a leader: run this again in a few seconds, before it acts.")
	}
	notes = append(notes, "Nodes that are removed must not run any more. If one of them still does, bring it back instead of recovering.")
	_, err := fmt.Fprintln(a.Out, "\n"+strings.Join(notes, "\n"))
	return err
}
