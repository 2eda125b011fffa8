#include "shim.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_malloc.h>
#include <rte_memory.h>
#include <rte_pause.h>
#include <rte_prefetch.h>

int gn_errno(void) { return rte_errno; }

uint64_t gn_tsc(void) { return rte_rdtsc(); }

void gn_pause(void) { rte_pause(); }

static inline void describe(struct rte_mbuf *m, struct gn_frame *f)
{
	f->data = rte_pktmbuf_mtod(m, const uint8_t *);
	f->len = rte_pktmbuf_data_len(m);
	f->pkt_len = rte_pktmbuf_pkt_len(m);
}

void gn_describe(struct rte_mbuf **mbufs, uint16_t n, struct gn_frame *frames)
{
	for (uint16_t i = 0; i < n; i++) {
		describe(mbufs[i], &frames[i]);
		rte_prefetch0(frames[i].data);
	}
}

uint16_t gn_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n, struct gn_frame *frames)
{
	uint16_t got = rte_eth_rx_burst(port, queue, mbufs, n);

	gn_describe(mbufs, got, frames);
	return got;
}

uint16_t gn_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, mbufs, n);
}

void gn_free_burst(struct rte_mbuf **mbufs, uint16_t n) { rte_pktmbuf_free_bulk(mbufs, n); }

void gn_free(struct rte_mbuf *mbuf) { rte_pktmbuf_free(mbuf); }

struct rte_mbuf *gn_clone(struct rte_mbuf *mbuf, struct rte_mempool *pool)
{
	struct rte_mbuf *clone;

	if (mbuf->nb_segs > 1)
		return rte_pktmbuf_clone(mbuf, pool);
	clone = rte_pktmbuf_alloc(pool);
	if (clone != NULL)
		rte_pktmbuf_attach(clone, mbuf);
	return clone;
}

uint16_t gn_alloc_burst(struct rte_mempool *pool, struct rte_mbuf **mbufs, uint16_t n)
{
	if (rte_pktmbuf_alloc_bulk(pool, mbufs, n) == 0)
		return n;
	/* The attempt may have left pointers that are not ours. */
	memset(mbufs, 0, n * sizeof(*mbufs));
	mbufs[0] = rte_pktmbuf_alloc(pool);
	return mbufs[0] != NULL;
}

bool gn_attach(struct rte_mbuf *fresh, struct rte_mbuf *mbuf)
{
	if (mbuf->nb_segs > 1)
		return false;
	rte_pktmbuf_attach(fresh, mbuf);
	return true;
}

uint8_t *gn_append(struct rte_mbuf *mbuf, uint16_t len) { return (uint8_t *)rte_pktmbuf_append(mbuf, len); }

struct rte_mbuf *gn_alloc(struct rte_mempool *pool) { return rte_pktmbuf_alloc(pool); }

bool gn_strip_front(struct rte_mbuf *mbuf, uint16_t len) { return rte_pktmbuf_adj(mbuf, len) != NULL; }

const uint8_t *gn_before(const struct rte_mbuf *mbuf, uint16_t len)
{
	if (rte_pktmbuf_headroom(mbuf) < len)
		return NULL;
	return rte_pktmbuf_mtod(mbuf, const uint8_t *) - len;
}

bool gn_chain(struct rte_mbuf *head, struct rte_mbuf *tail) { return rte_pktmbuf_chain(head, tail) == 0; }

void gn_cut(struct rte_mbuf *mbuf, uint32_t len)
{
	struct rte_mbuf *segment = mbuf;
	uint32_t left = len;

	if (len >= rte_pktmbuf_pkt_len(mbuf))
		return;
	mbuf->nb_segs = 1;
	for (; left > rte_pktmbuf_data_len(segment); segment = segment->next) {
		left -= rte_pktmbuf_data_len(segment);
		mbuf->nb_segs++;
	}
	rte_pktmbuf_free(segment->next);
	segment->next = NULL;
	segment->data_len = (uint16_t)left;
	mbuf->pkt_len = len;
}

struct rte_mbuf *gn_skip(struct rte_mbuf *mbuf, uint32_t len)
{
	while (len >= rte_pktmbuf_data_len(mbuf) && mbuf->next != NULL) {
		struct rte_mbuf *next = mbuf->next;

		next->nb_segs = mbuf->nb_segs - 1;
		next->pkt_len = mbuf->pkt_len - rte_pktmbuf_data_len(mbuf);
		len -= rte_pktmbuf_data_len(mbuf);
		mbuf->next = NULL;
		mbuf->nb_segs = 1;
		rte_pktmbuf_free(mbuf);
		mbuf = next;
	}
	rte_pktmbuf_adj(mbuf, RTE_MIN(len, (uint32_t)rte_pktmbuf_data_len(mbuf)));
	return mbuf;
}

uint32_t gn_pkt_len(const struct rte_mbuf *mbuf) { return rte_pktmbuf_pkt_len(mbuf); }

uint32_t gn_copy_out(const struct rte_mbuf *mbuf, uint8_t *to, uint32_t len)
{
	uint32_t done = 0;

	for (; mbuf != NULL && done < len; mbuf = mbuf->next) {
		uint32_t part = RTE_MIN((uint32_t)rte_pktmbuf_data_len(mbuf), len - done);

		memcpy(to + done, rte_pktmbuf_mtod(mbuf, const void *), part);
		done += part;
	}
	return done;
}

unsigned int gn_ring_enqueue(struct rte_ring *ring, struct rte_mbuf **mbufs, unsigned int n)
{
	return rte_ring_enqueue_burst(ring, (void **)mbufs, n, NULL);
}

unsigned int gn_ring_dequeue(struct rte_ring *ring, struct rte_mbuf **mbufs, unsigned int n)
{
	return rte_ring_dequeue_burst(ring, (void **)mbufs, n, NULL);
}

uint64_t gn_heap_bytes(void)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < rte_socket_count(); i++) {
		struct rte_malloc_socket_stats stats;

		if (rte_malloc_get_socket_stats(rte_socket_id_by_idx(i), &stats) == 0)
			bytes += stats.heap_allocsz_bytes;
	}
	return bytes;
}

static int advise_huge(const struct rte_memseg_list *list, void *unused)
{
	(void)unused;
	madvise(list->base_va, list->len, MADV_HUGEPAGE);
	return 0;
}

void gn_advise_huge(void) { rte_memseg_list_walk(advise_huge, NULL); }

void *gn_zeroed(size_t bytes) { return rte_zmalloc(NULL, bytes, RTE_CACHE_LINE_SIZE); }

void gn_release(void *memory) { rte_free(memory); }

int gn_interface_flags(const char *name)
{
	struct ifreq request;
	int code, fd;

	memset(&request, 0, sizeof(request));
	if (strlen(name) >= sizeof(request.ifr_name))
		return -ENODEV;
	strcpy(request.ifr_name, name);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	code = ioctl(fd, SIOCGIFFLAGS, &request) < 0 ? -errno : (int)(uint16_t)request.ifr_flags;
	close(fd);
	return code;
}
