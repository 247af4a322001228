/* SPDX-License-Identifier: Apache-2.0
 *
 * esplane as a library: ESP (RFC 4303) for packets that your own program receives and sends.
 *
 * You have the I/O, the threads and the clock; libesplane has SAs, policies and the transforms.
 *
 *   control    one thread at a time: engine, SAs, policies, tick.  The rules are Linux XFRM's.
 *   workers    your packet threads: each registers, pushes bursts of its own buffers through
 *              esplane_inbound() and esplane_outbound(), and reports quiescence once per loop.
 *
 * The library does no I/O and starts no thread.  Between the call of a burst and its return there
 * is no lock, allocation or system call, no byte is copied and buffers stay yours.
 *
 * Integers are in host byte order, SPIs and ports too; addresses are bytes as on the wire.
 *
 * Errors: a function that returns int returns 0, or what its text says, or -errno;
 * esplane_error_text() then says why in one line.  Every function may also return
 *   -EBADF    the handle is none, or what it named is gone
 *   -EINVAL   an argument is missing or out of its range; a struct's `size` was not set; what is
 *             reserved in one that goes in is not zero
 *   -E2BIG    a struct from a later version with a field set that this version does not know
 *   -EBUSY    another thread is in a control call; or the call comes out of a callback, where only
 *             reading is allowed
 * and nothing has changed then.
 *
 * Structs: those passed by pointer begin with `size`, which the esplane_*_init functions set.  They
 * grow at the end; a program built against a shorter one keeps working.  Those inside others
 * (addresses, selectors, limits, ...) never change.  What is reserved must be zero in those that go
 * in, and is zero in those that come out.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define ESPLANE_API __attribute__((visibility("default")))
#define ESPLANE_MUST_CHECK __attribute__((warn_unused_result))
#else
#define ESPLANE_API
#define ESPLANE_MUST_CHECK
#endif

/* What this header describes.  It changes only where a program built before could no longer run;
 * the library refuses an engine for another one. */
#define ESPLANE_ABI_VERSION 1u

/* Room that esplane_outbound() needs around a packet, whatever SA it takes: outer IPv6, UDP and ESP
 * header and IV in front; padding, pad length, next header and ICV behind.  Bytes. */
#define ESPLANE_HEADROOM 80u
#define ESPLANE_TAILROOM 40u

/* No limit of bytes or packets. */
#define ESPLANE_NO_LIMIT UINT64_MAX

struct esplane_engine;
struct esplane_worker;

/* ---------------------------------------------------------------- values inside structs: closed */

enum esplane_family { ESPLANE_ANY_FAMILY = 0, ESPLANE_IPV4 = 4, ESPLANE_IPV6 = 6 };

/* An IPv4 address is in the first 4 bytes, the others are zero.  All zero: any. */
struct esplane_address {
    uint8_t bytes[16];
    uint8_t family; /* enum esplane_family */
    uint8_t reserved[3];
};

/* What names an SA (RFC 4301 section 4.1). */
struct esplane_sa_id {
    struct esplane_address destination; /* of the outer packet; its family is the SA's */
    uint32_t spi;                       /* 0 names none */
    uint8_t protocol;                   /* 50, ESP */
    uint8_t reserved[3];
};

/* Which packets (RFC 4301 section 4.4.1.1, in XFRM's form).  A prefix length, mask or protocol of 0
 * matches everything.  Ports hold the type and code of ICMP, the halves of a GRE key. */
struct esplane_selector {
    struct esplane_address source;
    struct esplane_address destination;
    uint8_t source_prefix; /* bits */
    uint8_t destination_prefix;
    uint8_t family; /* enum esplane_family; ESPLANE_ANY_FAMILY in SAs only */
    uint8_t protocol;
    uint16_t source_port;
    uint16_t source_port_mask;
    uint16_t destination_port;
    uint16_t destination_port_mask;
    uint32_t reserved[2];
};

/* Limits as XFRM has them: soft announces, hard ends.  Bytes are those of inner IP packets. */
struct esplane_limits {
    uint64_t soft_bytes; /* ESPLANE_NO_LIMIT: none */
    uint64_t hard_bytes;
    uint64_t soft_packets;
    uint64_t hard_packets;
    uint64_t soft_add_s; /* seconds since it was added; 0: none */
    uint64_t hard_add_s;
    uint64_t soft_use_s; /* seconds since it was first used; 0: none */
    uint64_t hard_use_s;
};

struct esplane_usage {
    uint64_t bytes;
    uint64_t packets;
    uint64_t add_time; /* wall clock, seconds; 0 when adding: now */
    uint64_t use_time; /* of the first packet; 0: never used */
};

/* An algorithm by the kernel's name ("rfc4106(gcm(aes))", "cbc(aes)", "hmac(sha256)"): README.md
 * lists those that are carried.
 * name   a string; NULL: there is none of this kind
 * key    the salt of an AEAD is its last 4 bytes (RFC 4106 section 8.1)
 * icv_bits   length of the ICV; AEAD and authentication only */
struct esplane_algorithm {
    const char* name;
    const uint8_t* key;
    uint32_t key_length; /* bytes */
    uint32_t icv_bits;
};

/* UDP encapsulation (RFC 3948). */
struct esplane_encapsulation {
    uint16_t type; /* 0: none; 2: ESP in UDP (UDP_ENCAP_ESPINUDP) */
    uint16_t source_port;
    uint16_t destination_port;
    uint16_t reserved;
    struct esplane_address original; /* carried only */
};

/* What a packet must have been protected with, or is to be (xfrm_user_tmpl). */
struct esplane_template {
    struct esplane_sa_id id;       /* spi 0: any */
    struct esplane_address source; /* any: not checked */
    uint8_t family;                /* of the outer header */
    uint8_t mode;                  /* enum esplane_mode */
    uint8_t share;
    uint8_t optional; /* "level use": packets in clear pass, too; outbound only in transport mode */
    uint32_t reqid;
    uint32_t auth_algs; /* these three: UINT32_MAX, any */
    uint32_t cipher_algs;
    uint32_t comp_algs;
};

/* A moment on both clocks; esplane_now() reads them. */
struct esplane_time {
    uint64_t monotonic_ns; /* CLOCK_MONOTONIC, nanoseconds */
    uint64_t realtime_s;   /* CLOCK_REALTIME, seconds */
};

/* --------------------------------------------------------------------------------- SAs, policies
 */

enum esplane_mode { ESPLANE_TRANSPORT = 0, ESPLANE_TUNNEL = 1 };

/* What a client said of an SA's direction; mostly nothing.  Then it is inbound when a packet's SPI
 * finds it and outbound when a policy's template resolves to it. */
enum esplane_direction { ESPLANE_EITHER_WAY = 0, ESPLANE_SA_IN = 1, ESPLANE_SA_OUT = 2 };

enum esplane_sa_state { ESPLANE_LARVAL = 0, ESPLANE_VALID = 1, ESPLANE_EXPIRED = 2 };

/* XFRM_STATE_* */
enum esplane_sa_flag {
    ESPLANE_SA_NO_ECN = 1,
    ESPLANE_SA_DECAP_DSCP = 2,
    ESPLANE_SA_NO_PMTU_DISCOVERY = 4,
    ESPLANE_SA_WILDCARD_RECEIVE = 8,
    ESPLANE_SA_ICMP = 16,
    ESPLANE_SA_ANY_INNER_FAMILY = 32,
    ESPLANE_SA_ALIGN4 = 64,
    ESPLANE_SA_ESN = 128
};
enum esplane_sa_extra_flag { ESPLANE_SA_DONT_ENCAP_DSCP = 1, ESPLANE_SA_OSEQ_MAY_WRAP = 2 };

/* An SA: ESP, in tunnel or transport mode.  Fields marked "out" are written by esplane_sa_get() and
 * esplane_sa_next() and not read when adding. */
struct esplane_sa {
    size_t size;
    struct esplane_sa_id id;
    struct esplane_address source;
    struct esplane_selector selector;
    struct esplane_address care_of; /* carried only */
    uint8_t mode;                   /* enum esplane_mode */
    uint8_t direction;              /* enum esplane_direction */
    uint8_t state;                  /* out: enum esplane_sa_state */
    uint8_t dying;                  /* out: a soft limit has passed */
    uint8_t flags;                  /* enum esplane_sa_flag */
    uint8_t reserved[3];
    uint32_t extra_flags; /* enum esplane_sa_extra_flag */
    uint32_t reqid;
    uint32_t if_id; /* of the interface it belongs to; 0: none */
    uint32_t seq;   /* of the ACQUIRE it answers, or, larval, that it is */
    struct esplane_encapsulation encapsulation;
    struct esplane_algorithm aead;
    struct esplane_algorithm cipher;
    struct esplane_algorithm auth;
    /* Anti-replay (RFC 4303 section 3.4.3): packets, 0 to 4096, a multiple of 32; 0: none. */
    uint32_t replay_window;
    uint32_t bitmap_words;      /* of `bitmap`: 0, or replay_window / 32 */
    const uint32_t* bitmap;     /* bit i: sequence_received - i was seen; lowest word first */
    uint64_t sequence_sent;     /* last number sent, all 64 bits */
    uint64_t sequence_received; /* highest number authenticated */
    struct esplane_limits limits;
    struct esplane_usage current;
    uint64_t last_used;         /* out: wall clock, seconds; 0: never */
    uint32_t replay_too_old;    /* out: packets left of the window */
    uint32_t replay_duplicates; /* out */
    uint32_t integrity_failed;  /* out */
    uint32_t reserved_end;
};

enum esplane_policy_direction { ESPLANE_IN = 0, ESPLANE_OUT = 1, ESPLANE_FORWARD = 2 };

/* Allow without a template: bypass; with one: protect.  Block: discard. */
enum esplane_action { ESPLANE_ALLOW = 0, ESPLANE_BLOCK = 1 };

/* A policy (RFC 4301 section 4.4.1, in XFRM's form). */
struct esplane_policy {
    size_t size;
    struct esplane_selector selector;
    uint8_t direction; /* enum esplane_policy_direction */
    uint8_t action;    /* enum esplane_action */
    uint8_t flags;     /* XFRM_POLICY_*; carried only */
    uint8_t share;     /* carried only */
    uint32_t priority; /* lower wins; among equals the one that came first */
    uint32_t index;    /* 0 when adding: to be given */
    uint32_t if_id;    /* packets of this interface only; 0: those of none */
    uint32_t template_count;
    uint8_t dying; /* out */
    uint8_t reserved[3];
    const struct esplane_template* templates; /* at most 1 in this version */
    struct esplane_limits limits;
    struct esplane_usage current;
};

/* What names a policy: direction, if_id and selector; or, index not 0, direction and index. */
struct esplane_policy_key {
    size_t size;
    struct esplane_selector selector;
    uint8_t direction; /* enum esplane_policy_direction */
    uint8_t reserved[3];
    uint32_t index;
    uint32_t if_id;
    uint32_t reserved_end;
};

/* An SPI to be chosen (RFC 4301 section 4.4.2.1: the receiver chooses it). */
struct esplane_spi_request {
    size_t size;
    struct esplane_address source;
    struct esplane_address destination;
    uint8_t protocol; /* 50 */
    uint8_t mode;     /* enum esplane_mode */
    uint8_t reserved[2];
    uint32_t reqid;
    uint32_t seq; /* carried only */
    uint32_t min; /* the range, both inclusive */
    uint32_t max;
    uint32_t if_id;
    uint32_t reserved_end;
};

/* Sets everything to its default: no limits, tunnel mode, ESP. */
static inline void esplane_sa_init(struct esplane_sa* s) {
    memset(s, 0, sizeof *s);
    s->size = sizeof *s;
    s->id.protocol = 50;
    s->mode = ESPLANE_TUNNEL;
    s->limits.soft_bytes = s->limits.hard_bytes = ESPLANE_NO_LIMIT;
    s->limits.soft_packets = s->limits.hard_packets = ESPLANE_NO_LIMIT;
}
static inline void esplane_policy_init(struct esplane_policy* p) {
    memset(p, 0, sizeof *p);
    p->size = sizeof *p;
    p->limits.soft_bytes = p->limits.hard_bytes = ESPLANE_NO_LIMIT;
    p->limits.soft_packets = p->limits.hard_packets = ESPLANE_NO_LIMIT;
}
static inline void esplane_template_init(struct esplane_template* t) {
    memset(t, 0, sizeof *t);
    t->id.protocol = 50;
    t->mode = ESPLANE_TUNNEL;
    t->auth_algs = t->cipher_algs = t->comp_algs = UINT32_MAX;
}
static inline void esplane_policy_key_init(struct esplane_policy_key* k) {
    memset(k, 0, sizeof *k);
    k->size = sizeof *k;
}
static inline void esplane_spi_request_init(struct esplane_spi_request* r) {
    memset(r, 0, sizeof *r);
    r->size = sizeof *r;
    r->protocol = 50;
    r->mode = ESPLANE_TUNNEL;
}

/* ---------------------------------------------------------------------------------------- events
 */

enum esplane_event_kind {
    ESPLANE_SA_ADDED = 1,
    ESPLANE_SA_UPDATED = 2,
    ESPLANE_SA_DELETED = 3,   /* it is gone, or about to be */
    ESPLANE_SA_FLUSHED = 4,   /* so are they */
    ESPLANE_SA_EXPIRED = 5,   /* a limit was reached; hard: it is gone, or about to be */
    ESPLANE_SA_FIRST_USE = 6, /* its first packet */
    ESPLANE_POLICY_ADDED = 7,
    ESPLANE_POLICY_UPDATED = 8,
    ESPLANE_POLICY_DELETED = 9,
    ESPLANE_POLICY_FLUSHED = 10,
    ESPLANE_POLICY_EXPIRED = 11,
    /* A policy's template wants an SA that is not there: see esplane_answer_acquires(). */
    ESPLANE_ACQUIRE = 12
};

/* Valid during the callback, with all it points to.  New kinds may come: ignore what you do not
 * know. */
struct esplane_event {
    size_t size;
    uint32_t kind; /* enum esplane_event_kind */
    uint8_t hard;  /* EXPIRED: the hard limit, not the soft */
    uint8_t reserved[3];
    const struct esplane_sa*
        sa; /* SA_ADDED to SA_FIRST_USE, ACQUIRE; without its keys; else NULL */
    const struct esplane_policy* policy; /* POLICY_ADDED to POLICY_EXPIRED, ACQUIRE; else NULL */
};

/* ---------------------------------------------------------------------------------------- engine
 */

/* What an engine is made of.  esplane_engine_options_init() sets the defaults. */
struct esplane_engine_options {
    size_t size;
    uint32_t abi_version;  /* ESPLANE_ABI_VERSION */
    uint32_t packet_size;  /* sizeof(struct esplane_packet): the distance in arrays of them */
    uint32_t mtu;          /* 1500.  Bytes of an IP packet, as esplane_set_mtu() */
    uint32_t max_workers;  /* 64.  1 to 64 */
    uint64_t max_sas;      /* 1,000,000 */
    uint64_t max_policies; /* 1,000,000 */
    /* Fills `into` with bytes that nobody can foretell: IVs, SPIs and hash keys are made of them.
     * NULL: getrandom(2).  Any thread that makes a control call or registers. */
    void (*random)(void* user, void* into, size_t length);
    void* random_user;
    /* Told what happens, by the thread of the control call during which it happens; what the data
     * path finds is told by esplane_tick().  It may read the engine, not change it.  NULL: nobody
     * is told. */
    void (*event)(void* user, const struct esplane_event* event);
    void* event_user;
    /* 1: AES-GCM by intel-ipsec-mb alone; 0: by a kernel of esplane's own where the processor can,
     * which is faster and takes half the memory for a key (doc/gcm-kernel.md).  Nothing else. */
    uint8_t library_gcm;
    uint8_t reserved[7]; /* 0 */
};

/* A burst's packet.  The buffer is yours throughout, and nobody else's: the engine writes into it.
 * Copy an mbuf that is a clone or has other holders.
 *
 *   buffer   [ headroom ][ data ... length ][ tailroom ]
 *
 * data points at an IPv4 or IPv6 header.  Outbound moves it into the headroom, inbound towards the
 * end, where the inner packet begins; the bytes between are the outer headers still. */
struct esplane_packet {
    /* In and out. */
    uint8_t* data;
    uint32_t length; /* bytes from data on, at most 65,535; a padding behind the IP packet is cut */
    uint16_t headroom; /* bytes before data that may be written */
    uint16_t tailroom; /* bytes after data + length that may be written */
    void* user;        /* never touched: your mbuf */
    /* In for outbound: the interface it was routed to.  Out for inbound: that of its SA.  0: none.
     */
    uint32_t if_id;
    /* Out. */
    uint8_t
        verdict; /* enum esplane_verdict.  0 before: a packet that still has 0 was not looked at */
    uint8_t family;      /* enum esplane_family of the IP packet at data */
    uint16_t reason;     /* of ESPLANE_DISCARD: see esplane_reason_name(); 0 else */
    uint32_t spi;        /* of the SA it took; 0: none */
    uint32_t mtu;        /* ESPLANE_TOO_BIG: what to report to its source (RFC 1191, RFC 8201) */
    uint16_t worker;     /* ESPLANE_OTHER_WORKER: index of the SA's worker */
    uint8_t local;       /* 1: for one of the machine's own addresses */
    uint8_t reserved[5]; /* for more of that kind: not looked at */
};

enum esplane_verdict {
    /* Outbound: it is an ESP packet of `family` now; route it by its new destination and send it.
     */
    ESPLANE_PROTECTED = 1,
    /* Inbound: it was ESP, it is the inner packet now, and a policy admits it: forward or, `local`,
     * deliver it. */
    ESPLANE_DECRYPTED = 2,
    /* Came in clear and may go on in clear; unchanged. */
    ESPLANE_BYPASS = 3,
    /* In clear for the machine itself: IKE, neighbour discovery, or what no policy forbids;
     * unchanged. */
    ESPLANE_FOR_MACHINE = 4,
    /* Not to be sent or delivered: counted under `reason`.  Unless the reason says that it was
     * decrypted (esp_padding and later), it is unchanged. */
    ESPLANE_DISCARD = 5,
    /* Larger than the path after ESP: tell its source `mtu`, or fragment it first.  Unchanged;
     * counted as too_big or too_big_fragment. */
    ESPLANE_TOO_BIG = 6,
    /* headroom is less than ESPLANE_HEADROOM or tailroom than ESPLANE_TAILROOM, and this SA needs
     * more: bring it in a larger buffer.  Unchanged; counted as no_room. */
    ESPLANE_NO_ROOM = 7,
    /* Its SA belongs to another worker: hand it to that one, which pushes it through the same call.
     * Unchanged. */
    ESPLANE_OTHER_WORKER = 8,
    /* A policy protects it, no SA carries it yet and an ESPLANE_ACQUIRE is under way: keep it, as
     * few as you like, and push it again when the SA is there; or lose it.  Unchanged; counted as
     * sa_missing.  Only after esplane_answer_acquires(). */
    ESPLANE_AWAIT_SA = 9
};

/* The ABI that the loaded library has, and its version ("0.1.0"). */
ESPLANE_API uint32_t esplane_abi_version(void);
ESPLANE_API const char* esplane_version(void);

/* Why the latest call of this thread that failed did so: one line, and the field at fault, or "".
 * Valid until the thread's next call. */
ESPLANE_API const char* esplane_error_text(void);
ESPLANE_API const char* esplane_error_field(void);

/* Both clocks as they stand. */
ESPLANE_API struct esplane_time esplane_now(void);

static inline void esplane_engine_options_init(struct esplane_engine_options* o);

/* Makes an engine.  At most 16 in a process.
 * Errors: -EPROTONOSUPPORT (abi_version is another than the library's); -ENOTSUP (the processor
 * lacks AES-NI or SSE4.2, or the cipher's self test failed); -ENOBUFS (16 there are). */
ESPLANE_API int esplane_engine_create(const struct esplane_engine_options* options,
                                      struct esplane_engine** engine) ESPLANE_MUST_CHECK;

/* Ends it; keys are wiped.  Errors: -EBUSY (a worker is registered still). */
ESPLANE_API int esplane_engine_destroy(struct esplane_engine* engine);

/* Runs timers that are due and tells the events of the data path.  Soft and hard limits in bytes
 * and packets are told no earlier than this: call it at least every 100 ms, or when
 * esplane_next_deadline() is past. */
ESPLANE_API int esplane_tick(struct esplane_engine* engine, struct esplane_time now);

/* The monotonic nanoseconds at which esplane_tick() has a timer to run; UINT64_MAX: none. */
ESPLANE_API int esplane_next_deadline(struct esplane_engine* engine, uint64_t* monotonic_ns);

/* The largest IP packet, ESP included, that may leave.  68 to 65,535 bytes.  From the next burst
 * on.  */
ESPLANE_API int esplane_set_mtu(struct esplane_engine* engine, uint32_t mtu);

/* The machine's own addresses: ESP to one of them is for esplane_inbound() to decrypt; anything
 * else to one is for the machine, and `in` policies hold for it, not `fwd`.  Replaces those that
 * were set before.  Errors: -EINVAL (an address without family). */
ESPLANE_API int esplane_set_addresses(struct esplane_engine* engine,
                                      const struct esplane_address* addresses, size_t count);

/* Whether you make SAs that policies want, when an ESPLANE_ACQUIRE event says so; at first you do
 * not, and what no SA carries is ESPLANE_DISCARD.  expires_s   how long a larval SA stands for a
 * request, during which it is not made again (one for each template; in transport mode, each pair
 * of addresses); 0: you do not answer.  30 is the kernel's default.  esplane_spi_allocate()'s
 * larval SAs live as long.  The event comes with esplane_tick(): its SA has the addresses, the
 * reqid, a selector of the flow and the `seq` to give back to esplane_sa_add(), which ends the
 * larval one.  That one is ESPLANE_SA_EXPIRED, hard, where none comes. */
ESPLANE_API int esplane_answer_acquires(struct esplane_engine* engine, uint32_t expires_s);

/* Which packets of a filter: came out of an SA, not yet held against `in` and `fwd`; or to be
 * encrypted by one. */
enum esplane_filter_direction { ESPLANE_FILTER_IN = 0, ESPLANE_FILTER_OUT = 1 };

/* Judges one inner packet: not 0, it is dropped (filter_denied).
 *
 * direction   enum esplane_filter_direction
 * worker      index of the worker whose thread calls: calls of one worker follow each other, those
 *             of different workers do not
 * ip, length  the packet from its IP header on; not to be changed
 * packet_user the `user` of its struct esplane_packet */
typedef int (*esplane_filter)(void* user, uint32_t direction, uint32_t worker, const uint8_t* ip,
                              uint32_t length, void* packet_user);

/* Puts a filter in the place of the one before; NULL: none.  When it returns the one before is not
 * called any more. */
ESPLANE_API int esplane_set_filter(struct esplane_engine* engine, esplane_filter filter,
                                   void* user);

/* XFRM_MSG_NEWSA.  In force for the next burst that begins.  The struct and all it points to stay
 * yours; wipe your copy of the keys.
 * Errors: -EEXIST; -ENOSYS (an algorithm that is not built in); -EINVAL (key length, window);
 * -EOPNOTSUPP (mode, protocol, encapsulation that are not carried); -ENOBUFS (max_sas). */
ESPLANE_API int esplane_sa_add(struct esplane_engine* engine, const struct esplane_sa* sa,
                               struct esplane_time now) ESPLANE_MUST_CHECK;

/* XFRM_MSG_UPDSA: fills a larval SA (esplane_spi_allocate), or changes lifetimes and encapsulation
 * of a valid one.  Errors: -ESRCH; those of esplane_sa_add(). */
ESPLANE_API int esplane_sa_update(struct esplane_engine* engine, const struct esplane_sa* sa,
                                  struct esplane_time now) ESPLANE_MUST_CHECK;

/* When it returns no burst that begins takes the SA.  Errors: -ESRCH. */
ESPLANE_API int esplane_sa_delete(struct esplane_engine* engine, const struct esplane_sa_id* id);

/* All of them.  Errors: none of its own. */
ESPLANE_API int esplane_sa_flush(struct esplane_engine* engine);

/* Asks the worker that has the SA to pass it on, in both its directions, with its next packet:
 * packets that reach the worker `to` after that are taken there.  Before its first packet an SA has
 * no worker, and nothing happens.
 * Errors: -ESRCH; -EINVAL (`to` is no index of a worker). */
ESPLANE_API int esplane_sa_move(struct esplane_engine* engine, const struct esplane_sa_id* id,
                                unsigned int to);

/* One SA, with counters as of now.  Pointers in `into`, keys among them, are valid until the next
 * control call.  Errors: -ESRCH. */
ESPLANE_API int esplane_sa_get(struct esplane_engine* engine, const struct esplane_sa_id* id,
                               struct esplane_sa* into) ESPLANE_MUST_CHECK;

/* The next SA of a walk, as esplane_sa_get().  cursor   UINT64_MAX to begin.  What is there during
 * the whole walk comes exactly once.  Returns 1, or 0 at the end. */
ESPLANE_API int esplane_sa_next(struct esplane_engine* engine, uint64_t* cursor,
                                struct esplane_sa* into) ESPLANE_MUST_CHECK;

/* XFRM_MSG_ALLOCSPI: reserves a free SPI in a larval SA, which goes after 30 s.
 * Errors: -EINVAL (min > max); -ENOENT (none is free); -ENOBUFS (max_sas). */
ESPLANE_API int esplane_spi_allocate(struct esplane_engine* engine,
                                     const struct esplane_spi_request* request,
                                     struct esplane_time now, uint32_t* spi) ESPLANE_MUST_CHECK;

/* XFRM_MSG_NEWPOLICY.  Errors: -EEXIST (same direction, if_id and selector); -EINVAL (an index of
 * another direction, more than one template); -ENOBUFS (max_policies). */
ESPLANE_API int esplane_policy_add(struct esplane_engine* engine, const struct esplane_policy* p,
                                   struct esplane_time now) ESPLANE_MUST_CHECK;

/* XFRM_MSG_UPDPOLICY: replaces or adds; no packet sees neither of both.  Errors: as above, but for
 * -EEXIST. */
ESPLANE_API int esplane_policy_update(struct esplane_engine* engine, const struct esplane_policy* p,
                                      struct esplane_time now) ESPLANE_MUST_CHECK;

/* Errors: -ENOENT. */
ESPLANE_API int esplane_policy_delete(struct esplane_engine* engine,
                                      const struct esplane_policy_key* key);
ESPLANE_API int esplane_policy_flush(struct esplane_engine* engine);

/* As esplane_sa_get() and esplane_sa_next().  Errors: -ENOENT. */
ESPLANE_API int esplane_policy_get(struct esplane_engine* engine,
                                   const struct esplane_policy_key* key,
                                   struct esplane_policy* into) ESPLANE_MUST_CHECK;
ESPLANE_API int esplane_policy_next(struct esplane_engine* engine, uint64_t* cursor,
                                    struct esplane_policy* into) ESPLANE_MUST_CHECK;

/* --------------------------------------------------------------------------------------- workers
 */

/* The calling thread is a worker from now on: it alone may use the handle.  It counts as inside the
 * tables until it says otherwise: what a control call takes out is freed when every worker was
 * quiescent since, or is offline; the call waits for that, 0.1 s at most.  A thread works for one
 * engine at a time; one that ends is unregistered.  A worker may make control calls, between
 * bursts: it is quiescent meanwhile.
 * Errors: -EALREADY (this thread is registered); -ENOBUFS (max_workers there are); -ENOTSUP. */
ESPLANE_API int esplane_worker_register(struct esplane_engine* engine,
                                        struct esplane_worker** worker) ESPLANE_MUST_CHECK;

/* By the worker's own thread, before it ends.  Errors: -EPERM (another thread). */
ESPLANE_API int esplane_worker_unregister(struct esplane_worker* worker);

/* Between two bursts, once per loop: nothing of the last burst is looked at any more.  A worker
 * that does not say so for long delays control calls and holds up memory.  Errors: -EPERM. */
ESPLANE_API int esplane_worker_quiescent(struct esplane_worker* worker);

/* Before the thread sleeps or does something long; and after.  While offline a burst is refused.
 * Errors: -EPERM. */
ESPLANE_API int esplane_worker_offline(struct esplane_worker* worker);
ESPLANE_API int esplane_worker_online(struct esplane_worker* worker);

/* Control call.  Takes all SAs from a worker whose thread is stuck in the middle of a burst, or has
 * not come back for long: each goes to the worker that has the next packet for it.  What that
 * thread still does with them if it comes back repeats nothing and is counted; sequence numbers of
 * its SAs jump by 65.  SAs of a thread that has unregistered are released by esplane_tick().
 * Returns how many there were.  Errors: -EINVAL (no index of a worker). */
ESPLANE_API int esplane_worker_abandon(struct esplane_engine* engine, unsigned int index);

/* 0 to max_workers - 1: what ESPLANE_OTHER_WORKER names.  Errors: -EBADF. */
ESPLANE_API int esplane_worker_index(struct esplane_worker* worker);

/* What arrives, from wherever it arrives.  ESP and ESP in UDP for an own address are verified and
 * decrypted (RFC 4303 section 3.4); what comes out, and what came in clear, is held against the
 * `in` and `fwd` policies.  Until its ICV is verified a packet moves nothing of its SA.
 *
 * packets   any number, of the distance that the engine was made with; every one has a verdict when
 *           the call returns 0
 * An SA has one worker at a time, so that order holds: the one that used it first.  Packets that
 * reach another come back as ESPLANE_OTHER_WORKER.
 * Errors: -EPERM (not this worker's thread, or it is offline); then no packet was looked at, and
 * none may be passed on. */
ESPLANE_API int esplane_inbound(struct esplane_worker* worker, struct esplane_packet* packets,
                                size_t count, struct esplane_time now) ESPLANE_MUST_CHECK;

/* For esplane_outbound(): packets came in clear and did not go through esplane_inbound(), so hold
 * them against `in` and `fwd` first. */
#define ESPLANE_FROM_OUTSIDE 1u

/* What leaves: held against the `out` policies, and encrypted where one protects it (RFC 4303
 * section 3.3).  The TTL is yours to count down.  IKE of the machine itself goes around this call.
 *
 * flags   ESPLANE_FROM_OUTSIDE or 0
 * Otherwise as esplane_inbound(). */
ESPLANE_API int esplane_outbound(struct esplane_worker* worker, struct esplane_packet* packets,
                                 size_t count, struct esplane_time now,
                                 uint32_t flags) ESPLANE_MUST_CHECK;

/* -------------------------------------------------------------------------------------- counters
 */

/* Sums over all workers, gone ones too.  Between bursts
 *   received = passed + for_machine + dropped + handed_over */
struct esplane_counters {
    size_t size;
    uint64_t received;
    uint64_t passed;      /* ESPLANE_PROTECTED, _DECRYPTED and _BYPASS */
    uint64_t for_machine; /* ESPLANE_FOR_MACHINE */
    uint64_t dropped;     /* ESPLANE_DISCARD, _TOO_BIG, _NO_ROOM and _AWAIT_SA */
    uint64_t handed_over; /* ESPLANE_OTHER_WORKER */
    uint64_t encrypted;   /* packets, those of them that went through the cipher */
    uint64_t decrypted;
};
static inline void esplane_counters_init(struct esplane_counters* c) {
    memset(c, 0, sizeof *c);
    c->size = sizeof *c;
}

/* Any thread, at any time but during the engine's destruction. */
ESPLANE_API int esplane_counters_get(struct esplane_engine* engine, struct esplane_counters* into);

/* How many packets were dropped for a reason.  Any thread.  Errors: -EINVAL (no such reason). */
ESPLANE_API int esplane_drops(struct esplane_engine* engine, uint16_t reason, uint64_t* count);

/* Reasons are numbered 1 to esplane_reason_count() - 1, otherwise in each version: keep names, not
 * numbers.  Name ("icv_mismatch") and one line of text; "" where there is no such reason. */
ESPLANE_API uint16_t esplane_reason_count(void);
ESPLANE_API const char* esplane_reason_name(uint16_t reason);
ESPLANE_API const char* esplane_reason_text(uint16_t reason);

static inline void esplane_engine_options_init(struct esplane_engine_options* o) {
    memset(o, 0, sizeof *o);
    o->size = sizeof *o;
    o->abi_version = ESPLANE_ABI_VERSION;
    o->packet_size = sizeof(struct esplane_packet);
    o->mtu = 1500;
    o->max_workers = 64;
    o->max_sas = 1000000;
    o->max_policies = 1000000;
}

#ifdef __cplusplus
}
#endif
