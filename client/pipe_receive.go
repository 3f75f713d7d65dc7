package client

// receive hands answers to their callers until the stream ends.
func (p *pipe) receive(st *pipeStream) {
	defer close(st.ended)
	var batch []*call
	for {
		f := newFrame()
		if st.err = st.RecvMsg(f); st.err != nil {
			f.release()
			return
		}
		st.received++
		p.conn.hear()
		p.node.alive()
		batch, st.err = p.deliver(f, batch[:0])
		if st.err != nil {
			return
		}
	}
}

// deliver ends the calls that f answers. batch is scratch space.
func (p *pipe) deliver(f *frame, batch []*call) ([]*call, error) {
	defer f.release()
	if f.buf == nil {
		return batch, nil
	}
	batch, err := p.collect(f, batch)
	f.refs.Add(int32(len(batch))) // at most 1<<slotBits
	p.node.outstanding.Add(-int64(len(batch)))
	for i, c := range batch {
		c.done <- c
		batch[i] = nil
	}
	return batch, err
}

// collect takes the answered calls out of their slots. An answer to an
// operation that was not sent, or is no longer waited for, is skipped.
func (p *pipe) collect(f *frame, batch []*call) ([]*call, error) {
	sent := p.sentFrame.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	for b := f.buf.ReadOnlyData(); len(b) > 0; {
		fd, rest, ok := nextField(b)
		if !ok {
			return batch, malformed("PipelineResponse")
		}
		b = rest
		if fd.number != fieldFrameOps {
			continue
		}
		id, ok := resultID(fd.bytes)
		if !ok {
			return batch, malformed("PipelineResult")
		}
		s := p.lookup(id)
		if s == nil || s.frame == 0 || s.frame > sent {
			continue
		}
		c := p.empty(s, id)
		c.frame, c.answer = f, fd.bytes
		batch = append(batch, c)
	}
	return batch, nil
}
