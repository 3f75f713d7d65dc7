package format

import "kvstore/internal/fault"

// AppendSlotChange encodes c for another node.
func AppendSlotChange(dst []byte, c *SlotChange) []byte {
	return appendSlotChange(append(dst, Version), c)
}

// DecodeSlotChange decodes b; the cursor aliases b.
func DecodeSlotChange(b []byte) (SlotChange, error) {
	d, err := slotDecoder(b, "step of a move of slots")
	if err != nil {
		return SlotChange{}, err
	}
	c := d.slotChange()
	return *c, d.finish("step of a move of slots")
}

// AppendSlotState encodes s for another node; nil is nothing.
func AppendSlotState(dst []byte, s *SlotState) []byte {
	if s == nil {
		return dst
	}
	return appendSlotState(append(dst, Version), s)
}

// DecodeSlotState decodes b, keeping nothing of it; no bytes are nil.
func DecodeSlotState(b []byte) (*SlotState, error) {
	if len(b) == 0 {
		return nil, nil
	}
	d, err := slotDecoder(b, "state of a group's slots")
	if err != nil {
		return nil, err
	}
	s := d.slotState()
	return s, d.finish("state of a group's slots")
}

func slotDecoder(b []byte, what string) (*decoder, error) {
	if len(b) == 0 || b[0] < MinVersion || b[0] > Version {
		return nil, fault.New(fault.Unsupported, "unknown format version of a "+what, "bytes", len(b), "min", MinVersion, "max", Version)
	}
	return &decoder{b: b[1:]}, nil
}
