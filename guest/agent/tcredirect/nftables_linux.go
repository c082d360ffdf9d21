package tcredirect

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// natRules makes the table of a guard, as nft(8) would with
//
//	table inet lsub {
//		flags owner
//		chain loopback {
//			type nat hook prerouting priority dstnat - 1
//			iif lo ip daddr 127.0.0.1 dnat to 127.0.0.1
//			iif lo ip6 daddr ::1 dnat to ::1
//		}
//	}
func natRules() [][]byte {
	const (
		table, chain = "lsub", "loopback"
		owner        = 2 // NFT_TABLE_F_OWNER
		before       = -101
	)
	return batch(
		nftMessage(unix.NFT_MSG_NEWTABLE,
			attr(unix.NFTA_TABLE_NAME, text(table)), attr(unix.NFTA_TABLE_FLAGS, be32(owner))),
		natChain(table, chain, before),
		natRule(table, chain, netip.MustParseAddr("127.0.0.1"), 0, netip.MustParseAddr("127.0.0.1")),
		natRule(table, chain, netip.MustParseAddr("::1"), 0, netip.MustParseAddr("::1")),
	)
}

// natChain makes a chain for what comes in.
func natChain(table, chain string, priority int32) []byte {
	return nftMessage(unix.NFT_MSG_NEWCHAIN,
		attr(unix.NFTA_CHAIN_TABLE, text(table)), attr(unix.NFTA_CHAIN_NAME, text(chain)), attr(unix.NFTA_CHAIN_TYPE, text("nat")),
		attr(unix.NFTA_CHAIN_HOOK|unix.NLA_F_NESTED,
			attr(unix.NFTA_HOOK_HOOKNUM, be32(unix.NF_INET_PRE_ROUTING)), attr(unix.NFTA_HOOK_PRIORITY, be32(uint32(priority)))))
}

// natRule makes a rule that leads what comes in by lo to an address, and to a
// port where that is not 0, to another address.
func natRule(table, chain string, from netip.Addr, port uint16, to netip.Addr) []byte {
	family, at := uint32(unix.NFPROTO_IPV4), uint32(16)
	if from.Is6() {
		family, at = unix.NFPROTO_IPV6, 24
	}
	exprs := [][]byte{
		meta(unix.NFT_META_IIF), equal(binary.NativeEndian.AppendUint32(nil, loIndex)),
		meta(unix.NFT_META_NFPROTO), equal([]byte{byte(family)}),
		payload(unix.NFT_PAYLOAD_NETWORK_HEADER, at, from.BitLen()/8), equal(from.AsSlice()),
	}
	if port != 0 {
		exprs = append(exprs, payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2), equal(binary.BigEndian.AppendUint16(nil, port)))
	}
	exprs = append(exprs,
		expr("immediate", attr(unix.NFTA_IMMEDIATE_DREG, register), attr(unix.NFTA_IMMEDIATE_DATA|unix.NLA_F_NESTED, attr(unix.NFTA_DATA_VALUE, to.AsSlice()))),
		expr("nat", attr(unix.NFTA_NAT_TYPE, be32(unix.NFT_NAT_DNAT)), attr(unix.NFTA_NAT_FAMILY, be32(family)), attr(unix.NFTA_NAT_REG_ADDR_MIN, register)))
	return nftMessage(unix.NFT_MSG_NEWRULE,
		attr(unix.NFTA_RULE_TABLE, text(table)), attr(unix.NFTA_RULE_CHAIN, text(chain)),
		attr(unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, exprs...))
}

// register is the one that the rules use.
var register = be32(unix.NFT_REG_1)

func meta(key uint32) []byte {
	return expr("meta", attr(unix.NFTA_META_DREG, register), attr(unix.NFTA_META_KEY, be32(key)))
}

func payload(base, at uint32, size int) []byte {
	return expr("payload", attr(unix.NFTA_PAYLOAD_DREG, register), attr(unix.NFTA_PAYLOAD_BASE, be32(base)),
		attr(unix.NFTA_PAYLOAD_OFFSET, be32(at)), attr(unix.NFTA_PAYLOAD_LEN, be32(uint32(size))))
}

func equal(value []byte) []byte {
	return expr("cmp", attr(unix.NFTA_CMP_SREG, register), attr(unix.NFTA_CMP_OP, be32(unix.NFT_CMP_EQ)),
		attr(unix.NFTA_CMP_DATA|unix.NLA_F_NESTED, attr(unix.NFTA_DATA_VALUE, value)))
}

func expr(name string, data ...[]byte) []byte {
	return attr(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, attr(unix.NFTA_EXPR_NAME, text(name)), attr(unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, data...))
}

// batch makes of messages one change.
func batch(messages ...[]byte) [][]byte {
	edge := func(kind uint16) []byte {
		return message(kind, unix.NLM_F_REQUEST, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	}
	messages = append([][]byte{edge(unix.NFNL_MSG_BATCH_BEGIN)}, messages...)
	return append(messages, edge(unix.NFNL_MSG_BATCH_END))
}

func nftMessage(kind uint16, attrs ...[]byte) []byte {
	const flags = unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_APPEND
	return message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, unix.NFPROTO_INET, 0, attrs...)
}

// message is a message of nfnetlink's: nlmsghdr, nfgenmsg, attributes.
func message(kind, flags uint16, family byte, resource uint16, attrs ...[]byte) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN, 256)
	b = append(b, family, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, resource)
	for _, a := range attrs {
		b = append(b, a...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], flags)
	return b
}

// attr is an attribute, with others in it or a value.
func attr(kind uint16, parts ...[]byte) []byte {
	b := make([]byte, unix.SizeofNlAttr)
	for _, p := range parts {
		b = append(b, p...)
	}
	binary.NativeEndian.PutUint16(b, uint16(len(b)))
	binary.NativeEndian.PutUint16(b[2:], kind)
	return append(b, make([]byte, align(len(b))-len(b))...)
}

func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func text(s string) []byte { return append([]byte(s), 0) }
func align(n int) int      { return (n + 3) &^ 3 }
