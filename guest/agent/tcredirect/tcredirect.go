// Package tcredirect leads TCP connections of the host's supervisor to the loopback
// of a network namespace, with no process in the way. The supervisor speaks TCP
// itself, in frames through the network card:
//
//	redirect, err := tcredirect.Attach("eth0", log) // on a thread in the namespace
//	defer redirect.Close()
//
// A server on the loopback sees a client at port 61000 or above of 127.0.0.1 or ::1. The
// Ethernet addresses of the supervisor's frames are zeros, as on lo, so no other frame is
// taken for one of them.
//
// Two small BPF programs do it. One looks at frames that come in by the card, and redirects
// the supervisor's to lo. The other looks at packets that leave by lo, and redirects the
// answers to the supervisor to the card: TCP to one of its ports, unless a socket of the
// namespace has that connection. So the programs keep no state about connections, and a
// program in the namespace that has bound such a port works as before.
//
// Only the supervisor connects: a SYN is never redirected to the card. The supervisor
// answers segments of unknown connections with a reset, and does not connect from a port
// to the same port.
package tcredirect

import (
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/asm"
)

// The supervisor's ports. They are above Linux's range of ports for clients.
const (
	FirstPort = 61000
	LastPort  = 65535
)

// loIndex is the index of lo in every network namespace, LOOPBACK_IFINDEX of
// linux/net_namespace.h.
const loIndex = 1

// Where fields are in struct __sk_buff and struct bpf_sock, from linux/bpf.h.
const (
	dataAt    = 76
	dataEndAt = 80
	stateAt   = 72
)

// What the programs return, and pass to helpers, from linux/bpf.h.
const (
	next         = -1 // TCX_NEXT: as if we were not there
	drop         = 2  // TCX_DROP
	toIngress    = 1  // BPF_F_INGRESS
	thisNetwork  = -1 // BPF_F_CURRENT_NETNS
	stateListen  = 10 // BPF_TCP_LISTEN
	protoTCP     = 6
	onlyFragment = 0x3fff // the offset of a fragment, and "more fragments"
)

// Lengths, and where fields are in a frame. All of an IPv6 header, or that of IPv4
// and TCP, is in the first 54 bytes.
const (
	ethLen  = 14
	headLen = 54

	typeAt = 12

	versionAt4  = ethLen
	fragmentAt4 = ethLen + 6
	protoAt4    = ethLen + 9
	sourceAt4   = ethLen + 12 // of addresses; the ports follow them
	flagsAt4    = ethLen + 20 + 13
	tupleLen4   = 4 + 4 + 2 + 2

	protoAt6  = ethLen + 6
	sourceAt6 = ethLen + 8
	flagsAt6  = ethLen + 40 + 13
	tupleLen6 = 16 + 16 + 2 + 2
)

// fromCard is the program for what comes in by the card.
func fromCard() asm.Instructions {
	// The head of the frame is copied to the stack: the card's driver leaves it
	// where a program does not see it when the frame is long. The addresses are
	// at multiples of 8 there.
	const at = -(headLen + 8)
	code := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, dataAt, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, dataEndAt, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, ethLen),
		asm.JGT.Reg(asm.R4, asm.R3, "next"),
		asm.LoadMem(asm.R4, asm.R2, 0, asm.Word),
		asm.LoadMem(asm.R5, asm.R2, 4, asm.Half),
		asm.Or.Reg(asm.R4, asm.R5),
		asm.JNE.Imm(asm.R4, 0, "next"), // almost every frame goes its way here

		asm.Mov.Reg(asm.R6, asm.R1),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, at),
		asm.Mov.Imm(asm.R4, headLen),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R2, asm.RFP, at+typeAt, asm.Half),
		asm.JNE.Imm(asm.R2, network16(0x0800), "ipv6"),
	}
	code = append(code, onlyTCP4(asm.RFP, at, "drop")...)
	code = append(code,
		asm.LoadMem(asm.R2, asm.RFP, at+sourceAt4+8, asm.Half),
		asm.LoadMem(asm.R3, asm.RFP, at+sourceAt4+10, asm.Half),
		asm.Ja.Label("ports"),

		asm.JNE.Imm(asm.R2, network16(0x86dd), "drop").WithSymbol("ipv6"))
	code = append(code, onlyTCP6(asm.RFP, at, "drop")...)
	return append(code,
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, headLen),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, at+headLen),
		asm.Mov.Imm(asm.R4, 4),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R2, asm.RFP, at+headLen, asm.Half),
		asm.LoadMem(asm.R3, asm.RFP, at+headLen+2, asm.Half),

		// The socket of a connection from a port to itself would be what its own
		// answers are for.
		asm.JEq.Reg(asm.R2, asm.R3, "drop").WithSymbol("ports"),
		asm.HostTo(asm.BE, asm.R2, asm.Half),
		asm.JLT.Imm(asm.R2, FirstPort, "drop"),
		asm.Mov.Imm(asm.R1, loIndex),
		asm.Mov.Imm(asm.R2, toIngress),
		asm.FnRedirect.Call(),
		asm.Return(),

		asm.Mov.Imm(asm.R0, drop).WithSymbol("drop"),
		asm.Return(),
		asm.Mov.Imm(asm.R0, next).WithSymbol("next"),
		asm.Return(),
	)
}

// toCard is the program for what goes out by lo. It runs for all of the namespace's
// loopback, so it asks first for what almost no packet has. Nothing is copied: what
// the namespace sends by TCP has its headers where the program sees them.
func toCard(card int) asm.Instructions {
	code := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, dataAt, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, dataEndAt, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, headLen),
		asm.JGT.Reg(asm.R4, asm.R3, "next"),
		asm.LoadMem(asm.R4, asm.R2, typeAt, asm.Half),
		asm.JNE.Imm(asm.R4, network16(0x0800), "ipv6"),
		asm.LoadMem(asm.R4, asm.R2, sourceAt4+10, asm.Half), // the port it goes to
		asm.HostTo(asm.BE, asm.R4, asm.Half),
		asm.JLT.Imm(asm.R4, FirstPort, "next"),
	}
	code = append(code, onlyTCP4(asm.R2, 0, "next")...)
	code = append(code,
		asm.LoadMem(asm.R4, asm.R2, flagsAt4, asm.Byte),
		// struct bpf_sock_tuple has addresses and ports just as the packet has them.
		asm.Add.Imm(asm.R2, sourceAt4),
		asm.Mov.Imm(asm.R3, tupleLen4),
		asm.Ja.Label("flags"),

		asm.JNE.Imm(asm.R4, network16(0x86dd), "next").WithSymbol("ipv6"),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, flagsAt6+1),
		asm.JGT.Reg(asm.R4, asm.R3, "next"),
		asm.LoadMem(asm.R4, asm.R2, sourceAt6+34, asm.Half),
		asm.HostTo(asm.BE, asm.R4, asm.Half),
		asm.JLT.Imm(asm.R4, FirstPort, "next"))
	code = append(code, onlyTCP6(asm.R2, 0, "next")...)
	return append(code,
		asm.LoadMem(asm.R4, asm.R2, flagsAt6, asm.Byte),
		asm.Add.Imm(asm.R2, sourceAt6),
		asm.Mov.Imm(asm.R3, tupleLen6),

		// Who connects to such a port is of the namespace: there may be no socket yet.
		asm.And.Imm(asm.R4, 0x12).WithSymbol("flags"),
		asm.JEq.Imm(asm.R4, 0x02, "next"), // SYN without ACK
		asm.Mov.Imm(asm.R4, thisNetwork),
		asm.Mov.Imm(asm.R5, 0),
		asm.FnSkcLookupTcp.Call(),
		asm.JEq.Imm(asm.R0, 0, "card"),
		asm.LoadMem(asm.R7, asm.R0, stateAt, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.FnSkRelease.Call(),
		// What merely listens on the port has no part in this connection.
		asm.JEq.Imm(asm.R7, stateListen, "card"),
		asm.Mov.Imm(asm.R0, next).WithSymbol("next"),
		asm.Return(),

		asm.Mov.Imm(asm.R1, int32(card)).WithSymbol("card"),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
	)
}

// onlyTCP4 goes to other unless the frame at an offset of a register has TCP from
// 127.0.0.1 to 127.0.0.1, in one piece and without IP options. It uses R4.
func onlyTCP4(base asm.Register, at int16, other string) asm.Instructions {
	local := int32(binary.NativeEndian.Uint32([]byte{127, 0, 0, 1}))
	return asm.Instructions{
		asm.LoadMem(asm.R4, base, at+versionAt4, asm.Byte),
		asm.JNE.Imm(asm.R4, 0x45, other),
		asm.LoadMem(asm.R4, base, at+protoAt4, asm.Byte),
		asm.JNE.Imm(asm.R4, protoTCP, other),
		asm.LoadMem(asm.R4, base, at+fragmentAt4, asm.Half),
		asm.And.Imm(asm.R4, network16(onlyFragment)),
		asm.JNE.Imm(asm.R4, 0, other),
		asm.LoadMem(asm.R4, base, at+sourceAt4, asm.Word),
		asm.JNE.Imm(asm.R4, local, other),
		asm.LoadMem(asm.R4, base, at+sourceAt4+4, asm.Word),
		asm.JNE.Imm(asm.R4, local, other),
	}
}

// onlyTCP6 is onlyTCP4 for ::1. It uses R4 and R5.
func onlyTCP6(base asm.Register, at int16, other string) asm.Instructions {
	one := int64(binary.NativeEndian.Uint64([]byte{7: 1}))
	code := asm.Instructions{
		asm.LoadMem(asm.R4, base, at+protoAt6, asm.Byte),
		asm.JNE.Imm(asm.R4, protoTCP, other),
		asm.LoadImm(asm.R5, one, asm.DWord),
	}
	for addr := at + sourceAt6; addr <= at+sourceAt6+16; addr += 16 {
		code = append(code,
			asm.LoadMem(asm.R4, base, addr, asm.DWord),
			asm.JNE.Imm(asm.R4, 0, other),
			asm.LoadMem(asm.R4, base, addr+8, asm.DWord),
			asm.JNE.Reg(asm.R4, asm.R5, other))
	}
	return code
}

// network16 is what a load of two bytes yields that hold n in network order.
func network16(n uint16) int32 {
	return int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n)))
}

// reserve adds the supervisor's ports to a list of reserved ones, as
// net.ipv4.ip_local_reserved_ports has it.
func reserve(list string) string {
	ours := strconv.Itoa(FirstPort) + "-" + strconv.Itoa(LastPort)
	if list = strings.TrimSpace(list); list == "" {
		return ours
	}
	return list + "," + ours
}
