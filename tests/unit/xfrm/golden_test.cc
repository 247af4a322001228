// SPDX-License-Identifier: Apache-2.0
//
// The requests that a Linux kernel was recorded with, in their order, to the dispatcher on the real
// control layer: every one within esplane's scope gets the recorded replies, events and errors.
//
// What differs between two runs on one kernel is mapped: SPIs that were allocated, times, port ids,
// indices of policies, counts over all SAs and policies.  What is out of scope is found by rule,
// counted and printed.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "lib/control/layer.h"
#include "tests/unit/lib/fake_backend.h"
#include "tests/unit/xfrm/requests.h"
#include "xfrm/attributes.h"
#include "xfrm/dispatch.h"
#include "xfrm/events.h"
#include "xfrm/policy_codec.h"

namespace esplane::xfrm {
namespace {

struct recording {
    std::string file;
    std::string direction;
    std::string scenario;
    datagram bytes;
};

std::vector<recording> load_recordings() {
    std::vector<recording> all;
    std::ifstream index(ESPLANE_GOLDEN "/index.tsv");
    std::string line;
    while (std::getline(index, line)) {
        if (line.empty() || line[0] == '#') continue;
        std::vector<std::string> columns;
        std::stringstream fields(line);
        for (std::string field; std::getline(fields, field, '\t');)
            columns.push_back(field);
        recording r{columns[0], columns[1], columns[5], {}};
        std::ifstream data(ESPLANE_GOLDEN "/" + r.file, std::ios::binary);
        r.bytes.assign(std::istreambuf_iterator<char>(data), {});
        all.push_back(std::move(r));
    }
    return all;
}

template <typename T>
T at(bytes b, std::size_t offset) {
    return read_fixed<T>(b.subspan(offset)).value();
}

template <typename T>
void put(datagram& d, std::size_t offset, T value) {
    std::memcpy(d.data() + offset, &value, sizeof value);
}

std::map<std::uint16_t, bytes> attributes_of(const message& m, std::size_t fixed) {
    std::map<std::uint16_t, bytes> all;
    for_each_attribute(m.after(fixed), [&](std::uint16_t type, bytes value) {
        all[type] = value;
        return true;
    });
    return all;
}

// Scope

std::string first_name(bytes algorithm) {
    return {reinterpret_cast<const char*>(algorithm.data()),
            ::strnlen(reinterpret_cast<const char*>(algorithm.data()), 64)};
}

/// Why the algorithms of an SA are not ours; empty where they are, or where the recorded kernel
/// refused them too.
std::string foreign_algorithm(const std::map<std::uint16_t, bytes>& a) {
    static const std::set<std::string> ours = {"rfc4106(gcm(aes))", "rfc4106(foo(aes))", "cbc(aes)",
                                               "hmac(sha256)", "ecb(cipher_null)"};
    for (const std::uint16_t type :
         {XFRMA_ALG_AEAD, XFRMA_ALG_AUTH, XFRMA_ALG_AUTH_TRUNC, XFRMA_ALG_CRYPT, XFRMA_ALG_COMP}) {
        const auto found = a.find(type);
        if (found == a.end()) continue;
        if (!ours.contains(first_name(found->second))) return "algorithm";
        if (type == XFRMA_ALG_AEAD && at<std::uint32_t>(found->second, 68) != 128)
            return "algorithm";
    }
    return {};
}

std::string foreign_sa(const message& m, std::size_t fixed) {
    const auto info = at<xfrm_usersa_info>(m.payload(), 0);
    const auto a = attributes_of(m, fixed);
    if (info.id.proto != 50) return "protocol";
    if (info.mode != XFRM_MODE_TUNNEL) return "mode";
    static const std::set<std::uint16_t> carried = {
        XFRMA_ALG_AUTH, XFRMA_ALG_AUTH_TRUNC, XFRMA_ALG_CRYPT,      XFRMA_ALG_AEAD,
        XFRMA_ENCAP,    XFRMA_REPLAY_VAL,     XFRMA_REPLAY_ESN_VAL, XFRMA_LTIME_VAL,
        XFRMA_LASTUSED, XFRMA_SA_EXTRA_FLAGS, XFRMA_SRCADDR,        xfrma_sa_dir,
        XFRMA_IF_ID,    XFRMA_TFCPAD,         XFRMA_COADDR,         XFRMA_SEC_CTX};
    for (const auto& [type, value] : a)
        if (!carried.contains(type)) return "attribute";
    if (a.contains(XFRMA_ENCAP) && at<std::uint16_t>(a.at(XFRMA_ENCAP), 0) > 2) return "attribute";
    return foreign_algorithm(a);
}

std::string foreign_policy(const message& m) {
    const auto a = attributes_of(m, sizeof(xfrm_userpolicy_info));
    for (const auto& [type, value] : a) {
        if (type == XFRMA_TMPL) {
            const auto t = at<xfrm_user_tmpl>(value, 0);
            if (t.id.proto != 50) return "protocol";
            if (t.mode != XFRM_MODE_TUNNEL) return "mode";
            if (value.size() > sizeof t) return "bundle of templates";
        } else if (type != XFRMA_IF_ID && type != XFRMA_POLICY_TYPE) {
            return "attribute";
        }
    }
    return {};
}

/// Why a request is out of scope; empty where it is not.
std::string out_of_scope(const message& m) {
    switch (m.header.nlmsg_type) {
    case XFRM_MSG_NEWSA:
    case XFRM_MSG_UPDSA:
        if (m.payload().size() < sizeof(xfrm_usersa_info)) return {};
        return foreign_sa(m, sizeof(xfrm_usersa_info));
    case XFRM_MSG_ALLOCSPI:
        return foreign_sa(m, sizeof(xfrm_userspi_info));
    case XFRM_MSG_GETSA:
        if ((m.header.nlmsg_flags & NLM_F_DUMP) != 0)
            return attributes_of(m, 0).contains(XFRMA_PROTO) ? "protocol" : "";
        return at<xfrm_usersa_id>(m.payload(), 0).proto == 50 ? "" : "protocol";
    case XFRM_MSG_FLUSHSA:
        return m.payload()[0] == 0 || m.payload()[0] == 50 ? "" : "protocol";
    case XFRM_MSG_NEWPOLICY:
    case XFRM_MSG_UPDPOLICY:
        return foreign_policy(m);
    case XFRM_MSG_DELSA:
    case XFRM_MSG_DELPOLICY:
    case XFRM_MSG_GETPOLICY:
    case XFRM_MSG_FLUSHPOLICY:
    case XFRM_MSG_GETSADINFO:
    case XFRM_MSG_GETSPDINFO:
    case XFRM_MSG_NEWSPDINFO:
    case XFRM_MSG_GETAE:
    case XFRM_MSG_NEWAE:
    case XFRM_MSG_EXPIRE:
    case XFRM_MSG_MIGRATE:
    case XFRM_MSG_SETDEFAULT:
    case XFRM_MSG_GETDEFAULT:
        return {};
    default:
        return "message type";
    }
}

bool is_event_of_scope(std::uint16_t type) {
    return type != XFRM_MSG_ACQUIRE && type != XFRM_MSG_MAPPING && type != XFRM_MSG_REPORT;
}

// The run

struct output {
    bool event = false;
    datagram bytes; ///< one message
};

class replay : private ipsec::listener, private reply_sink {
  public:
    replay()
        : layer_(backend_, [](auto into) { std::ranges::fill(into, 7); })
        , dispatcher_(layer_) {
        layer_.subscribe(this);
        layer_.answer_acquires(this, true);
        layer_.hear_replays(this, true);
        client_.port_id = port_id;
    }
    ~replay() override { layer_.unsubscribe(this); }

    std::vector<output> request(const recording& r) {
        // ip(8) numbers its requests by the time and asks for extended ACKs; raw ones do neither.
        client_.extended_acks = messages_of(r.bytes).at(0).header.nlmsg_seq > 1'000'000'000;
        dispatcher_.request(r.bytes, client_, now_, *this);
        while (client_.dump)
            reply(dispatcher_.continue_dump(client_));
        return std::exchange(outputs_, {});
    }

    /// The traffic that the recording saw, as counted in `current` and `sent`.
    void count(const ipsec::sa_id& id, const ipsec::lifetime_current& current, std::uint64_t sent) {
        control::sa_usage& u = backend_.usage[id];
        u.current = current;
        u.replay.sent = sent;
    }

    /// The packets after which the kernel told of an SA, and the time where they were too few.
    std::vector<output> move(const message& recorded) {
        const auto id = at<xfrm_aevent_id>(recorded.payload(), 0);
        const auto a = attributes_of(recorded, sizeof id);
        const ipsec::sa_id moved = decode_sa_id(id.sa_id);
        count(moved, current_from(at<xfrm_lifetime_cur>(a.at(XFRMA_LTIME_VAL), 0)),
              at<xfrm_replay_state>(a.at(XFRMA_REPLAY_VAL), 0).oseq);
        backend_.listener->on_replay(moved);
        return outputs_.empty() ? pass_time() : std::exchange(outputs_, {});
    }

    /// Brings an expiry about: a limit in packets is the data path's, others come with time.
    std::vector<output> expire(const message& recorded) {
        const auto info = at<xfrm_user_expire>(recorded.payload(), 0);
        const ipsec::sa_id id{address_from(info.state.id.daddr, family_from(info.state.family)),
                              wire::be32::from_network(info.state.id.spi), info.state.id.proto};
        if (info.state.lft.hard_packet_limit != ~std::uint64_t{0}) {
            count(id, current_from(info.state.curlft), info.state.curlft.packets);
            backend_.listener->on_lifetime(id, info.hard != 0);
            return std::exchange(outputs_, {});
        }
        return pass_time();
    }

    /// The packet that made the kernel ask for an SA, after that was told how long to wait for it.
    std::vector<output> want(const message& recorded) {
        layer_.set_acquire_expires(2);
        const auto asked = at<xfrm_user_acquire>(recorded.payload(), 0);
        const ipsec::selector s = selector_from(asked.sel);
        const ipsec::policy* const p =
            layer_.get_policy({ipsec::policy_direction::out, selector_from(asked.policy.sel), 0});
        EXPECT_NE(p, nullptr) << "the policy that an ACQUIRE names";
        if (p != nullptr)
            backend_.listener->on_sa_wanted(
                p->index, {s.source, s.destination, s.source_port, s.destination_port, s.protocol},
                std::nullopt);
        return std::exchange(outputs_, {});
    }

    std::vector<output> pass_time() {
        while (outputs_.empty() && layer_.next_deadline_ns()) {
            const std::uint64_t to = *layer_.next_deadline_ns();
            now_.realtime_s += (to - now_.monotonic_ns + 999'999'999) / 1'000'000'000;
            now_.monotonic_ns = to;
            layer_.tick(now_);
        }
        return std::exchange(outputs_, {});
    }

    [[nodiscard]] bool has(const xfrm_usersa_info& i) {
        return layer_.get_sa({address_from(i.id.daddr, family_from(i.family)),
                              wire::be32::from_network(i.id.spi), i.id.proto}) != nullptr;
    }
    [[nodiscard]] bool has(const xfrm_usersa_id& id) {
        return layer_.get_sa(decode_sa_id(id)) != nullptr;
    }
    [[nodiscard]] bool has(const xfrm_userpolicy_info& i) {
        const auto has_one = [&](ipsec::policy_type type) {
            return layer_.get_policy({static_cast<ipsec::policy_direction>(i.dir),
                                      selector_from(i.sel),
                                      0,
                                      0,
                                      {},
                                      type}) != nullptr;
        };
        return has_one(ipsec::policy_type::main) || has_one(ipsec::policy_type::sub);
    }
    [[nodiscard]] std::size_t sa_count() const { return layer_.sa_count(); }
    [[nodiscard]] control::spd_counts policy_counts() const { return layer_.policy_counts(); }

    static constexpr std::uint32_t port_id = 4711;

  private:
    void on_event(const ipsec::event& e) override {
        datagram d;
        encode_event(e, d);
        outputs_.push_back({true, std::move(d)});
    }
    void reply(datagram&& d) override {
        EXPECT_LE(d.size(), max_dump_datagram);
        EXPECT_EQ(d.size() % NLMSG_ALIGNTO, 0u);
        for (const message& m : messages_of(d))
            outputs_.push_back({false, datagram(m.whole.begin(), m.whole.end())});
    }

    control::fake_backend backend_;
    control::layer layer_;
    dispatcher dispatcher_;
    client_state client_;
    moment now_{1'000'000'000, 1'700'000'000};
    std::vector<output> outputs_;
};

// Mapping: both sides are brought to one form.

constexpr std::size_t header = NLMSG_HDRLEN;

void map_times(datagram& d, std::size_t lifetime_offset) {
    for (const std::size_t offset : {lifetime_offset + offsetof(xfrm_lifetime_cur, add_time),
                                     lifetime_offset + offsetof(xfrm_lifetime_cur, use_time)})
        put<std::uint64_t>(d, offset, at<std::uint64_t>(d, offset) != 0 ? 1 : 0);
}

class mapping {
  public:
    /// `d` as it would be in any run.
    datagram canonical(datagram d, bool event, bool ours) {
        const auto h = at<nlmsghdr>(d, 0);
        if (!event) put<std::uint32_t>(d, offsetof(nlmsghdr, nlmsg_pid), 0);
        switch (h.nlmsg_type) {
        case XFRM_MSG_NEWSA:
        case XFRM_MSG_UPDSA:
        case XFRM_MSG_EXPIRE:
            sa(d, header);
            break;
        case XFRM_MSG_ACQUIRE:
            ifindex(d, header + offsetof(xfrm_user_acquire, sel));
            policy(d, header + offsetof(xfrm_user_acquire, policy), ours);
            // The kernel counts a use when a packet has found its SA, esplane when its policy.
            put<std::uint64_t>(d,
                               header + offsetof(xfrm_user_acquire, policy.curlft) +
                                   offsetof(xfrm_lifetime_cur, use_time),
                               0);
            break;
        case XFRM_MSG_DELSA:
            sa(d, header + sizeof(xfrm_usersa_id) + sizeof(nlattr));
            break;
        case XFRM_MSG_NEWPOLICY:
        case XFRM_MSG_UPDPOLICY:
        case XFRM_MSG_POLEXPIRE:
            policy(d, header, ours);
            break;
        case XFRM_MSG_DELPOLICY:
            policy(d, header + sizeof(xfrm_userpolicy_id) + sizeof(nlattr), ours);
            break;
        case XFRM_MSG_NEWAE:
            map_times(d, d.size() - sizeof(xfrm_lifetime_cur));
            break;
        case XFRM_MSG_NEWSADINFO:
        case XFRM_MSG_NEWSPDINFO:
            counts(d);
            break;
        default:
            break;
        }
        return d;
    }

  private:
    /// The kernel names the device that the flow leaves by in what an ACQUIRE is for.
    static void ifindex(datagram& d, std::size_t selector) {
        put<std::uint32_t>(d, selector + offsetof(xfrm_selector, ifindex), 0);
    }
    static void sa(datagram& d, std::size_t offset) {
        ifindex(d, offset + offsetof(xfrm_usersa_info, sel));
        map_times(d, offset + offsetof(xfrm_usersa_info, curlft));
        // A larval SA has no algorithm: its SPI was allocated.
        const bool larval = d.size() == header + sizeof(xfrm_usersa_info) + 16;
        if (larval) put<std::uint32_t>(d, offset + offsetof(xfrm_usersa_info, id.spi), 0);
    }
    void policy(datagram& d, std::size_t offset, bool ours) {
        map_times(d, offset + offsetof(xfrm_userpolicy_info, curlft));
        const std::size_t place = offset + offsetof(xfrm_userpolicy_info, index);
        auto& known = indices_[ours];
        const auto index = at<std::uint32_t>(d, place);
        EXPECT_EQ(index & 7, d[offset + offsetof(xfrm_userpolicy_info, dir)]);
        const auto order = static_cast<std::uint32_t>(known.size());
        put<std::uint32_t>(d, place, known.try_emplace(index, order).first->second);
    }
    static void counts(datagram& d) {
        const std::size_t first = header + sizeof(std::uint32_t);
        const bool sad = at<nlmsghdr>(d, 0).nlmsg_type == XFRM_MSG_NEWSADINFO;
        const std::size_t length = sad ? sizeof(std::uint32_t) : sizeof(xfrmu_spdinfo);
        std::fill_n(d.begin() + first + sizeof(nlattr), length, 0);
        put<std::uint32_t>(d, first + sizeof(nlattr) + length + sizeof(nlattr), 0); // buckets
    }

    std::map<std::uint32_t, std::uint32_t> indices_[2]; ///< in order of appearance
};

std::string hex(bytes b) {
    std::string text;
    char two[4];
    for (std::size_t i = 0; i < b.size(); ++i) {
        std::snprintf(two, sizeof two, "%02x%s", b[i], i % 4 == 3 ? " " : "");
        text += two;
    }
    return text;
}

/// Recorded outputs from `first` on that belong to the same scenario, one message each, without
/// objects that are out of scope.
std::vector<output> expected(const std::vector<recording>& all, std::size_t& next, replay& run,
                             bool dump) {
    std::vector<output> out;
    const std::string& scenario = all[next - 1].scenario;
    for (; next < all.size() && all[next].direction != "req" && all[next].scenario == scenario;
         ++next) {
        for (const message& m : messages_of(all[next].bytes)) {
            const std::uint16_t type = m.header.nlmsg_type;
            const bool event = all[next].direction == "event";
            if (event && !is_event_of_scope(type)) continue;
            if (dump && type == XFRM_MSG_NEWSA && !run.has(at<xfrm_usersa_info>(m.payload(), 0)))
                continue;
            if (dump && type == XFRM_MSG_NEWPOLICY &&
                (!run.has(at<xfrm_userpolicy_info>(m.payload(), 0)) || !foreign_policy(m).empty()))
                continue;
            out.push_back({event, datagram(m.whole.begin(), m.whole.end())});
        }
    }
    return out;
}

void compare(const std::string& file, const std::vector<output>& recorded,
             const std::vector<output>& ours, mapping& map) {
    ASSERT_EQ(recorded.size(), ours.size()) << file;
    for (std::size_t i = 0; i < ours.size(); ++i) {
        EXPECT_EQ(recorded[i].event, ours[i].event) << file << ": order of output " << i;
        if (!ours[i].event) {
            const auto reply = at<nlmsghdr>(ours[i].bytes, 0);
            const bool of_the_request = reply.nlmsg_type == XFRM_MSG_NEWAE;
            EXPECT_EQ(reply.nlmsg_pid, of_the_request ? 0 : replay::port_id) << file;
        }
        EXPECT_EQ(hex(map.canonical(recorded[i].bytes, recorded[i].event, false)),
                  hex(map.canonical(ours[i].bytes, ours[i].event, true)))
            << file << ": output " << i;
    }
}

/// What a skipped request leaves different in the recorded kernel until the next flush.
bool changes_what_is_in_scope(const message& m) {
    return m.header.nlmsg_type == XFRM_MSG_NEWAE;
}

void feed_traffic(const recording& reply, replay& run) {
    const message m = messages_of(reply.bytes).at(0);
    const auto id = at<xfrm_aevent_id>(m.payload(), 0);
    const auto a = attributes_of(m, sizeof id);
    run.count(decode_sa_id(id.sa_id), current_from(at<xfrm_lifetime_cur>(a.at(XFRMA_LTIME_VAL), 0)),
              at<xfrm_replay_state>(a.at(XFRMA_REPLAY_VAL), 0).oseq);
}

TEST(Golden, EveryRecordedRequestInScopeGetsTheKernelsAnswers) {
    const auto all = load_recordings();
    ASSERT_GT(all.size(), 300u) << "recordings in " ESPLANE_GOLDEN;
    replay run;
    mapping map;
    std::map<std::string, int> skipped;
    int replayed = 0, brought_about = 0;
    bool diverged = false;
    bool only_foreign_sas = false;

    for (std::size_t next = 0; next < all.size();) {
        const recording& r = all[next++];
        if (r.scenario == "xfrmi") { // rtnetlink, seen on the same monitor
            skipped["rtnetlink"] += r.direction == "req" ? 1 : 0;
            continue;
        }
        const message m = messages_of(r.bytes).at(0);
        if (r.direction == "event") { // of traffic or time
            std::vector<output> ours;
            const bool of_acquire =
                m.header.nlmsg_type == XFRM_MSG_EXPIRE &&
                at<xfrm_usersa_info>(m.payload(), 0).id.spi == 0; // no SPI was allocated
            if (m.header.nlmsg_type == XFRM_MSG_POLEXPIRE || of_acquire)
                ours = run.pass_time();
            else if (m.header.nlmsg_type == XFRM_MSG_ACQUIRE)
                ours = run.want(m);
            else if (m.header.nlmsg_type == XFRM_MSG_NEWAE &&
                     run.has(at<xfrm_aevent_id>(m.payload(), 0).sa_id))
                ours = run.move(m);
            else if (m.header.nlmsg_type == XFRM_MSG_EXPIRE &&
                     run.has(at<xfrm_usersa_info>(m.payload(), 0)))
                ours = run.expire(m);
            else
                continue;
            compare(r.file, {{true, r.bytes}}, ours, map);
            ++brought_about;
            continue;
        }
        ASSERT_EQ(r.direction, "req") << r.file;
        const bool dump =
            (m.header.nlmsg_flags & NLM_F_DUMP) != 0 &&
            (m.header.nlmsg_type == XFRM_MSG_GETSA || m.header.nlmsg_type == XFRM_MSG_GETPOLICY);
        std::string why = out_of_scope(m);
        if (why.empty() && diverged && dump) why = "state left by a skipped request";
        if (!why.empty()) {
            ++skipped[why];
            only_foreign_sas = m.header.nlmsg_type == XFRM_MSG_NEWSA && run.sa_count() == 0;
            diverged = diverged || changes_what_is_in_scope(m);
            expected(all, next, run, false);
            continue;
        }
        if (m.header.nlmsg_type == XFRM_MSG_GETAE) feed_traffic(all.at(next), run);
        if (m.header.nlmsg_type == XFRM_MSG_FLUSHPOLICY) diverged = false;
        const auto ours = run.request(r);
        auto recorded = expected(all, next, run, dump);
        if (m.header.nlmsg_type == XFRM_MSG_FLUSHSA && std::exchange(only_foreign_sas, false))
            std::erase_if(recorded, [](const output& o) {
                return o.event;
            }); // here there was nothing to flush
        compare(r.file, recorded, ours, map);
        ++replayed;
    }
    std::cout << replayed << " requests replayed, " << brought_about
              << " events brought about; out of scope:";
    for (const auto& [why, count] : skipped)
        std::cout << ' ' << why << ' ' << count << ',';
    std::cout << '\n';
    EXPECT_GE(replayed, 80);
    EXPECT_GE(brought_about, 9);
}

} // namespace
} // namespace esplane::xfrm
