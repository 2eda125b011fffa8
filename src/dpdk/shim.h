/* DPDK's inline functions as real ones, whole bursts at a time. Nothing here decides anything. */
#ifndef GNOMON_SHIM_H
#define GNOMON_SHIM_H

#include <stdbool.h>
#include <stdint.h>

#include <net/if.h>

#include <rte_acl.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_hash.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_vect.h>
#include <rte_version.h>

/* Macros that bindgen cannot see through. */
static const int GN_IFF_UP = IFF_UP;
static const int GN_IFF_RUNNING = IFF_RUNNING;
static const uint64_t GN_RX_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t GN_TX_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t GN_RSS_WHOLE = RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_IPV6;
static const uint64_t GN_RSS_ADDRESSES = RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_FRAG_IPV4 | RTE_ETH_RSS_NONFRAG_IPV4_OTHER |
					 RTE_ETH_RSS_IPV6 | RTE_ETH_RSS_FRAG_IPV6 | RTE_ETH_RSS_NONFRAG_IPV6_OTHER;

/* First segment of one packet, as the parser wants it. */
struct gn_frame {
	const uint8_t *data;
	uint32_t len;      /* bytes in the first segment */
	uint32_t pkt_len;  /* bytes in all segments */
};

/* Rules of rte_acl with five fields, and with eleven: an address of IPv6 is four. */
RTE_ACL_RULE_DEF(gn_acl_rule, 5);
RTE_ACL_RULE_DEF(gn_acl_rule6, 11);

int gn_errno(void);
uint64_t gn_tsc(void);
void gn_pause(void);

uint16_t gn_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n, struct gn_frame *frames);
uint16_t gn_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n);
/* Describes mbufs that came from somewhere else than gn_rx_burst. */
void gn_describe(struct rte_mbuf **mbufs, uint16_t n, struct gn_frame *frames);
void gn_free_burst(struct rte_mbuf **mbufs, uint16_t n);

void gn_free(struct rte_mbuf *mbuf);
struct rte_mbuf *gn_alloc(struct rte_mempool *pool);
/* Up to n fresh mbufs, fewer when the pool is nearly empty, NULL behind them; returns how many. */
uint16_t gn_alloc_burst(struct rte_mempool *pool, struct rte_mbuf **mbufs, uint16_t n);
/* Makes a fresh mbuf without room a reference-counted copy; false, and nothing done, for one of several segments. */
bool gn_attach(struct rte_mbuf *fresh, struct rte_mbuf *mbuf);
/* Room for len more bytes at the end, NULL when there is none. */
uint8_t *gn_append(struct rte_mbuf *mbuf, uint16_t len);
/* A reference-counted copy: own header, shared bytes. NULL when the pool is empty. */
struct rte_mbuf *gn_clone(struct rte_mbuf *mbuf, struct rte_mempool *pool);
/* Cuts len bytes off the front, false when the first segment is shorter. */
bool gn_strip_front(struct rte_mbuf *mbuf, uint16_t len);
/* The len bytes in front of the data, NULL when the headroom is smaller. */
const uint8_t *gn_before(const struct rte_mbuf *mbuf, uint16_t len);
/* Puts `tail`, which it then owns, behind `head`; false when that makes too many segments. */
bool gn_chain(struct rte_mbuf *head, struct rte_mbuf *tail);

/* Cuts a packet to its first `len` bytes, at least one; what is cut off is freed. */
void gn_cut(struct rte_mbuf *mbuf, uint32_t len);

/* Cuts len bytes off the front, over all segments; returns what is the packet's first segment then. */
struct rte_mbuf *gn_skip(struct rte_mbuf *mbuf, uint32_t len);

uint32_t gn_pkt_len(const struct rte_mbuf *mbuf);
/* Copies up to len bytes of all segments; returns how many. */
uint32_t gn_copy_out(const struct rte_mbuf *mbuf, uint8_t *to, uint32_t len);

unsigned int gn_ring_enqueue(struct rte_ring *ring, struct rte_mbuf **mbufs, unsigned int n);
unsigned int gn_ring_dequeue(struct rte_ring *ring, struct rte_mbuf **mbufs, unsigned int n);

/* Bytes in use on all of DPDK's heaps. */
uint64_t gn_heap_bytes(void);
/* Asks for transparent huge pages under all of DPDK's memory, for what is not touched yet. */
void gn_advise_huge(void);
/* Zeroed memory of DPDK's heap on a cache line, NULL when there is none. */
void *gn_zeroed(size_t bytes);
void gn_release(void *memory);

/* IFF_ flags of a kernel interface in this network namespace, or a negative errno. */
int gn_interface_flags(const char *name);

#endif
