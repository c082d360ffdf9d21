package devicefilter

import (
	"testing"

	"github.com/cilium/ebpf/asm"
)

// run runs a program of deny's on a device, as the kernel does.
func run(t *testing.T, code asm.Instructions, kind, major, minor uint32) int64 {
	t.Helper()
	labels := map[string]int{}
	for i, ins := range code {
		if s := ins.Symbol(); s != "" {
			labels[s] = i
		}
	}
	const mknod = 1
	context := map[int16]int64{kindAt: int64(mknod<<16 | kind), majorAt: int64(major), minorAt: int64(minor)}
	var reg [11]int64
	for pc := 0; pc < len(code); pc++ {
		ins := code[pc]
		switch op := ins.OpCode; {
		case op.JumpOp() == asm.Exit:
			return reg[asm.R0]
		case op.JumpOp() == asm.JNE:
			if reg[ins.Dst] != ins.Constant {
				pc = labels[ins.Reference()] - 1
			}
		case op.Class().IsLoad():
			reg[ins.Dst] = context[ins.Offset]
		case op.ALUOp() == asm.Mov:
			reg[ins.Dst] = ins.Constant
		case op.ALUOp() == asm.And:
			reg[ins.Dst] &= ins.Constant
		default:
			t.Fatalf("instruction %v", ins)
		}
	}
	t.Fatal("the program has no end")
	return 0
}

func TestDeny(t *testing.T) {
	code := deny(append(always[:len(always):len(always)], rule{block, 254, anyMinor}))
	for _, d := range []struct {
		name               string
		kind, major, minor uint32
		want               int64
	}{
		{"the system disk", block, 254, 0, 0},
		{"the data disk", block, 254, 16, 0},
		{"a partition", block, 254, 17, 0},
		{"a character device of that number", char, 254, 16, 1},
		{"loop0", block, 7, 0, 1},
		{"an anonymous device, which docker makes", block, 0, 40, 1},
		{"mem", char, 1, 1, 0},
		{"a RAM disk of that number", block, 1, 1, 1},
		{"null", char, 1, 3, 1},
		{"urandom", char, 1, 9, 1},
		{"kmsg", char, 1, 11, 1},
		{"sg5", char, 21, 5, 0},
		{"fuse", char, 10, 229, 1},
		{"tun", char, 10, 200, 1},
		{"snapshot", char, 10, 231, 0},
		{"a terminal", char, 136, 3, 1},
	} {
		if got := run(t, code, d.kind, d.major, d.minor); got != d.want {
			t.Errorf("%s: %d, want %d", d.name, got, d.want)
		}
	}
}
