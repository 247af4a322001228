/* SPDX-License-Identifier: Apache-2.0
 *
 * Two gateways in one program, and a tunnel between them: packets are made in memory, encrypted by
 * the first, decrypted by the second and compared with what they were.
 *
 *   10.1.0.0/16 --- gateway 1 === 192.168.77.1 ==== 192.168.77.2 === gateway 2 --- 10.2.0.0/16
 *
 *   cc tunnel.c $(pkg-config --cflags --libs libesplane) -o tunnel
 *   ./tunnel [PACKETS [FILE]]      FILE: the encrypted packets, a capture of raw IP
 *
 * One thread does everything here: it makes the control calls and is a worker of one engine after
 * the other.  A gateway has a control thread, and a worker on each core.
 */
#include <esplane/esplane.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

enum { burst = 32, payload = 1000, udp_packet = 20 + 8 + payload, buffer_size = 2048 };

/* AES-128-GCM with a salt of 4 bytes (RFC 4106 section 8.1).  Yours come from IKE. */
static const uint8_t key[20] = {0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19,
                                0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23};

static void must(int returned, const char* what) {
    if (returned >= 0) return;
    fprintf(stderr, "tunnel: %s: %s %s\n", what, strerror(-returned), esplane_error_text());
    exit(1);
}

static struct esplane_address address(const char* text) {
    struct esplane_address a;
    memset(&a, 0, sizeof a);
    a.family = ESPLANE_IPV4;
    if (inet_pton(AF_INET, text, a.bytes) != 1) exit(1);
    return a;
}

/* What happens is told during the control call in which it happens. */
static void on_event(void* user, const struct esplane_event* event) {
    if (event->kind == ESPLANE_SA_FIRST_USE)
        printf("%s: SA %#x has its first packet\n", (const char*)user, event->sa->id.spi);
}

/* The SA from gateway 1 to gateway 2: both have it, and neither says whose it is.  At 1 it becomes
 * outbound, because a policy's template finds it; at 2 inbound, because a packet does. */
static void add_sa(struct esplane_engine* engine) {
    struct esplane_sa sa;
    esplane_sa_init(&sa);
    sa.id.destination = address("192.168.77.2");
    sa.id.spi = 0x1000;
    sa.source = address("192.168.77.1");
    sa.reqid = 1;
    sa.flags = ESPLANE_SA_ESN;
    sa.replay_window = 64;
    sa.aead.name = "rfc4106(gcm(aes))";
    sa.aead.key = key;
    sa.aead.key_length = sizeof key;
    sa.aead.icv_bits = 128;
    must(esplane_sa_add(engine, &sa, esplane_now()), "esplane_sa_add");
}

static void add_policy(struct esplane_engine* engine, uint8_t direction) {
    struct esplane_template via;
    esplane_template_init(&via);
    via.family = ESPLANE_IPV4;
    via.source = address("192.168.77.1");
    via.id.destination = address("192.168.77.2");
    via.reqid = 1;

    struct esplane_policy policy;
    esplane_policy_init(&policy);
    policy.direction = direction;
    policy.selector.family = ESPLANE_IPV4;
    policy.selector.source = address("10.1.0.0");
    policy.selector.source_prefix = 16;
    policy.selector.destination = address("10.2.0.0");
    policy.selector.destination_prefix = 16;
    policy.templates = &via;
    policy.template_count = 1;
    must(esplane_policy_add(engine, &policy, esplane_now()), "esplane_policy_add");
}

static struct esplane_engine* make_gateway(const char* name, const char* own, uint8_t direction) {
    struct esplane_engine_options options;
    esplane_engine_options_init(&options);
    options.event = on_event;
    options.event_user = (void*)name;
    struct esplane_engine* engine;
    must(esplane_engine_create(&options, &engine), "esplane_engine_create");
    const struct esplane_address self = address(own);
    must(esplane_set_addresses(engine, &self, 1), "esplane_set_addresses");
    add_sa(engine);
    add_policy(engine, direction);
    return engine;
}

static uint16_t checksum(const uint8_t* data, size_t length) {
    uint32_t sum = 0;
    for (size_t i = 0; i < length; i += 2)
        sum += (uint32_t)data[i] << 8 | data[i + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t) ~(sum + (sum >> 16));
}

/* A UDP packet from 10.1.0.1 to 10.2.0.1 whose payload says its number. */
static void make_packet(uint8_t* ip, uint32_t number) {
    static const uint8_t header[28] = {0x45,
                                       0,
                                       udp_packet >> 8,
                                       udp_packet & 0xff,
                                       0,
                                       0,
                                       0x40,
                                       0,
                                       64,
                                       17,
                                       0,
                                       0,
                                       10,
                                       1,
                                       0,
                                       1,
                                       10,
                                       2,
                                       0,
                                       1,
                                       0x03,
                                       0xe8,
                                       0x07,
                                       0xd0,
                                       (8 + payload) >> 8,
                                       (8 + payload) & 0xff,
                                       0,
                                       0};
    memcpy(ip, header, sizeof header);
    const uint16_t sum = checksum(ip, 20);
    ip[10] = (uint8_t)(sum >> 8);
    ip[11] = (uint8_t)sum;
    for (uint32_t i = 0; i < payload; ++i)
        ip[28 + i] = (uint8_t)(number >> (i % 4 * 8));
}

/* A capture of IP packets without anything before them: LINKTYPE_RAW. */
static FILE* open_capture(const char* path) {
    static const uint32_t header[6] = {0xa1b2c3d4, 2 | 4 << 16, 0, 0, 65535, 101};
    FILE* file = fopen(path, "wb");
    if (file == NULL || fwrite(header, sizeof header, 1, file) != 1) {
        perror(path);
        exit(1);
    }
    return file;
}

static void capture(FILE* file, const struct esplane_packet* packet) {
    const uint32_t header[4] = {0, 0, packet->length, packet->length};
    if (file == NULL) return;
    fwrite(header, sizeof header, 1, file);
    fwrite(packet->data, packet->length, 1, file);
}

static void print_counters(const char* name, struct esplane_engine* engine) {
    struct esplane_counters c;
    esplane_counters_init(&c);
    must(esplane_counters_get(engine, &c), "esplane_counters_get");
    printf("%s: received %llu, passed %llu, dropped %llu, encrypted %llu, decrypted %llu\n", name,
           (unsigned long long)c.received, (unsigned long long)c.passed,
           (unsigned long long)c.dropped, (unsigned long long)c.encrypted,
           (unsigned long long)c.decrypted);
}

static uint8_t buffers[burst][buffer_size];

/* A burst in buffers of our own, with the room that ESP needs in front. */
static void fill(struct esplane_packet* packets, uint32_t count, uint32_t first) {
    memset(packets, 0, count * sizeof *packets);
    for (uint32_t i = 0; i < count; ++i) {
        packets[i].data = buffers[i] + ESPLANE_HEADROOM;
        packets[i].length = udp_packet;
        packets[i].headroom = ESPLANE_HEADROOM;
        packets[i].tailroom = buffer_size - ESPLANE_HEADROOM - udp_packet;
        make_packet(packets[i].data, first + i);
    }
}

/* Runs a burst through an engine; packets with another verdict than the wanted are an error. */
static void run(struct esplane_engine* engine, struct esplane_packet* packets, uint32_t count,
                int out) {
    struct esplane_worker* worker;
    must(esplane_worker_register(engine, &worker), "esplane_worker_register");
    must(out ? esplane_outbound(worker, packets, count, esplane_now(), 0)
             : esplane_inbound(worker, packets, count, esplane_now()),
         "burst");
    must(esplane_worker_unregister(worker), "esplane_worker_unregister");
    for (uint32_t i = 0; i < count; ++i)
        if (packets[i].verdict != (out ? ESPLANE_PROTECTED : ESPLANE_DECRYPTED)) {
            fprintf(stderr, "tunnel: packet %u has verdict %u %s\n", i, packets[i].verdict,
                    esplane_reason_name(packets[i].reason));
            exit(1);
        }
}

static void compare(const struct esplane_packet* packets, uint32_t count, uint32_t first) {
    uint8_t expected[udp_packet];
    for (uint32_t i = 0; i < count; ++i) {
        make_packet(expected, first + i);
        if (packets[i].length != udp_packet || memcmp(packets[i].data, expected, udp_packet) != 0) {
            fprintf(stderr, "tunnel: packet %u came out as another\n", first + i);
            exit(1);
        }
    }
}

int main(int argc, char** argv) {
    const uint32_t total = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000;
    FILE* file = argc > 2 ? open_capture(argv[2]) : NULL;
    struct esplane_engine* near = make_gateway("gateway 1", "192.168.77.1", ESPLANE_OUT);
    struct esplane_engine* far = make_gateway("gateway 2", "192.168.77.2", ESPLANE_FORWARD);

    struct esplane_packet packets[burst];
    for (uint32_t done = 0; done < total;) {
        const uint32_t count = total - done < burst ? total - done : burst;
        fill(packets, count, done);
        run(near, packets, count, 1);
        for (uint32_t i = 0; i < count; ++i)
            capture(file, &packets[i]);
        run(far, packets, count, 0);
        compare(packets, count, done);
        done += count;
    }

    must(esplane_tick(near, esplane_now()), "esplane_tick");
    must(esplane_tick(far, esplane_now()), "esplane_tick");
    print_counters("gateway 1", near);
    print_counters("gateway 2", far);
    must(esplane_engine_destroy(near), "esplane_engine_destroy");
    must(esplane_engine_destroy(far), "esplane_engine_destroy");
    if (file != NULL && fclose(file) != 0) return 1;
    printf("%u packets went through the tunnel and came out as they were\n", total);
    return 0;
}
