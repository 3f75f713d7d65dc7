package router

import (
	"context"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// Peer.Call methods behind SlotStep, SlotStatus, SlotExport and SlotChanges.
const (
	SlotStepMethod   = "SlotStep"
	SlotStatusMethod = "SlotStatus"
	SlotExportMethod = "SlotExport"
)

// SlotHost is the host's part in moves of slots; *host.Host is the real one.
type SlotHost interface {
	// ChangeSlots takes a step in the log of a group that is led here.
	ChangeSlots(ctx context.Context, g keyspace.GroupID, c format.SlotChange) (host.SlotAnswer, error)
	ExportSlots(ctx context.Context, q host.ExportRequest) (host.ExportPage, error)
	// ExportChanged returns fault.OutOfRange when the log does not reach back.
	ExportChanged(ctx context.Context, q host.ChangedRequest) (host.ExportPage, error)
	// SlotStates are the published ones of the replicas here.
	SlotStates() map[keyspace.GroupID]*format.SlotState
	// EstimateBytes is about what a group's records take here.
	EstimateBytes(g keyspace.GroupID) int64
}

// SlotStatus is what a group's serving leader says of its slots.
type SlotStatus struct {
	// Slots is nil for a group without a layout of its own.
	Slots *format.SlotState
	// Clock and Index are a confirmed reading (host.ClockReading), taken before
	// Slots was looked at.
	Clock keyspace.Revision
	Index keyspace.Index
	// Base is the index of an entry up to which all is stamped at or below Clock:
	// what is above Clock follows it in the log. What Index holds may be newer than
	// Clock.
	Base keyspace.Index
	// Bytes is about what the group's records take.
	Bytes int64
}

// SlotStep has the leader of a group take a step of a move.
func (r *Router) SlotStep(ctx context.Context, g keyspace.GroupID, c format.SlotChange) (answer host.SlotAnswer, err error) {
	q := &api.SlotStepRequest{Group: uint32(g), Change: format.AppendSlotChange(nil, &c)}
	err = r.onGroup(ctx, g, attempt{
		local: func(ctx context.Context) (err error) {
			answer, err = r.o.Slots.ChangeSlots(ctx, g, c)
			return err
		},
		remote: func(ctx context.Context, node keyspace.NodeID, _ api.PeerClient) error {
			resp := &api.SlotStepResponse{}
			if err := r.CallPeer(ctx, node, SlotStepMethod, q, resp); err != nil {
				return err
			}
			slots, err := format.DecodeSlotState(resp.Slots)
			answer = host.SlotAnswer{
				Index: keyspace.Index(resp.Index), Nonce: keyspace.Index(resp.Nonce), Ceiling: keyspace.Revision(resp.Ceiling),
				Floor: keyspace.Revision(resp.Floor), Slots: slots,
			}
			return err
		},
	})
	return answer, err
}

// ServeSlotStep answers SlotStepMethod.
func (r *Router) ServeSlotStep(ctx context.Context, q *api.SlotStepRequest) (*api.SlotStepResponse, error) {
	if err := r.servesSlots(); err != nil {
		return nil, err
	}
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	c, err := format.DecodeSlotChange(q.Change)
	if err != nil {
		return nil, err
	}
	a, err := r.o.Slots.ChangeSlots(ctx, keyspace.GroupID(q.Group), c)
	if err != nil {
		return nil, err
	}
	return &api.SlotStepResponse{
		Index: uint64(a.Index), Nonce: uint64(a.Nonce), Ceiling: uint64(a.Ceiling), Floor: uint64(a.Floor),
		Slots: format.AppendSlotState(nil, a.Slots),
	}, nil
}

func (r *Router) servesSlots() error {
	if r.o.Slots == nil {
		return fault.New(fault.Unsupported, "this node does not move slots")
	}
	return nil
}

// SlotStatus asks the leader of a group for its slots at a confirmed clock.
func (r *Router) SlotStatus(ctx context.Context, g keyspace.GroupID) (s SlotStatus, err error) {
	err = r.onGroup(ctx, g, attempt{
		local: func(ctx context.Context) (err error) {
			s, err = r.slotStatus(ctx, g)
			return err
		},
		remote: func(ctx context.Context, node keyspace.NodeID, _ api.PeerClient) error {
			resp := &api.SlotStatusResponse{}
			if err := r.CallPeer(ctx, node, SlotStatusMethod, &api.SlotStatusRequest{Group: uint32(g)}, resp); err != nil {
				return err
			}
			slots, err := format.DecodeSlotState(resp.Slots)
			s = SlotStatus{Slots: slots, Clock: keyspace.Revision(resp.Clock), Index: keyspace.Index(resp.Index),
				Base: keyspace.Index(resp.Base), Bytes: int64(resp.Bytes)}
			return err
		},
	})
	return s, err
}

// slotStatus looks at what is applied, reads the clock, and then looks at the
// slots, so that each is at least as new as the one before.
func (r *Router) slotStatus(ctx context.Context, g keyspace.GroupID) (SlotStatus, error) {
	if leader, local, _ := r.o.Host.Leader(g); !local {
		return SlotStatus{}, r.elsewhere(g, leader)
	}
	var base keyspace.Index
	for _, s := range r.o.Host.Groups() {
		if s.Group == g {
			base = s.Applied
		}
	}
	c := r.o.Host.Clocks(ctx, []keyspace.GroupID{g}, 0)[0]
	if c.Err != nil {
		return SlotStatus{}, c.Err
	}
	s, hosted := r.o.Slots.SlotStates()[g]
	if !hosted {
		return SlotStatus{}, r.elsewhere(g, "")
	}
	return SlotStatus{Slots: s, Clock: c.Clock, Index: c.Index, Base: base, Bytes: r.o.Slots.EstimateBytes(g)}, nil
}

// ServeSlotStatus answers SlotStatusMethod.
func (r *Router) ServeSlotStatus(ctx context.Context, q *api.SlotStatusRequest) (*api.SlotStatusResponse, error) {
	if err := r.servesSlots(); err != nil {
		return nil, err
	}
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	s, err := r.slotStatus(ctx, keyspace.GroupID(q.Group))
	if err != nil {
		return nil, err
	}
	return &api.SlotStatusResponse{
		Slots: format.AppendSlotState(nil, s.Slots), Clock: uint64(s.Clock), Index: uint64(s.Index), Base: uint64(s.Base), Bytes: uint64(s.Bytes),
	}, nil
}

// SlotExport reads a page of the records of slots from any replica of a group,
// the leader's first.
func (r *Router) SlotExport(ctx context.Context, q host.ExportRequest) (host.ExportPage, error) {
	return r.slotPage(ctx, q.Group, &api.SlotExportRequest{
		Group: uint32(q.Group), Slots: q.Slots.String(), MaxBytes: uint64(q.MaxBytes), Rev: uint64(q.Rev), Index: uint64(q.Index), After: q.After,
	})
}

// SlotChanges reads a page of what changed in a part of a group's log from its
// leader.
func (r *Router) SlotChanges(ctx context.Context, q host.ChangedRequest) (host.ExportPage, error) {
	return r.slotPage(ctx, q.Group, &api.SlotExportRequest{
		Group: uint32(q.Group), Slots: q.Slots.String(), MaxBytes: uint64(q.MaxBytes), From: uint64(q.From), To: uint64(q.To),
		Skip: q.Skip,
	})
}

func (r *Router) slotPage(ctx context.Context, g keyspace.GroupID, q *api.SlotExportRequest) (page host.ExportPage, err error) {
	err = r.onGroup(ctx, g, attempt{
		patient: true,
		local: func(ctx context.Context) (err error) {
			page, err = r.exportHere(ctx, q)
			return err
		},
		remote: func(ctx context.Context, node keyspace.NodeID, _ api.PeerClient) error {
			resp := &api.SlotExportResponse{}
			if err := r.CallPeer(ctx, node, SlotExportMethod, q, resp); err != nil {
				return err
			}
			page, err = format.DecodeExportPage(resp.Page)
			return err
		},
	})
	return page, err
}

// exportHere reads a page from this node's replica.
func (r *Router) exportHere(ctx context.Context, q *api.SlotExportRequest) (host.ExportPage, error) {
	slots, err := format.ParseSlotSet(q.Slots)
	if err != nil {
		return host.ExportPage{}, err
	}
	g, most := keyspace.GroupID(q.Group), int(min(q.MaxBytes, MaxMessageBytes/2))
	if q.To == 0 {
		return r.o.Slots.ExportSlots(ctx, host.ExportRequest{
			Group: g, Slots: slots, Rev: keyspace.Revision(q.Rev), Index: keyspace.Index(q.Index), After: q.After, MaxBytes: most,
		})
	}
	return r.o.Slots.ExportChanged(ctx, host.ChangedRequest{
		Group: g, Slots: slots, From: keyspace.Index(q.From), To: keyspace.Index(q.To), Skip: q.Skip, MaxBytes: most,
	})
}

// ServeSlotExport answers SlotExportMethod.
func (r *Router) ServeSlotExport(ctx context.Context, q *api.SlotExportRequest) (*api.SlotExportResponse, error) {
	if err := r.servesSlots(); err != nil {
		return nil, err
	}
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	if g := keyspace.GroupID(q.Group); !r.o.Host.Hosts(g) {
		return nil, r.elsewhere(g, "")
	}
	page, err := r.exportHere(ctx, q)
	if err != nil {
		return nil, err
	}
	return &api.SlotExportResponse{Page: format.AppendExportPage(nil, &page)}, nil
}
