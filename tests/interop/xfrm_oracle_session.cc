// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/xfrm_oracle_session.h"

#include <cstddef>
#include <cstring>
#include <fstream>
#include <stdexcept>

namespace esplane::tests::oracle {

namespace {

class writer {
  public:
    explicit writer(const std::string& file)
        : file_(file)
        , out_(file, std::ios::binary) {}
    void number(std::size_t n) {
        const auto value = static_cast<std::uint32_t>(n);
        out_.write(reinterpret_cast<const char*>(&value), sizeof value);
    }
    void bytes(const std::vector<std::uint8_t>& b) {
        number(b.size());
        out_.write(reinterpret_cast<const char*>(b.data()), static_cast<std::streamsize>(b.size()));
    }
    void close() {
        out_.close();
        if (!out_) throw std::runtime_error("cannot write " + file_);
    }

  private:
    std::string file_;
    std::ofstream out_;
};

class reader {
  public:
    explicit reader(const std::string& file)
        : file_(file)
        , in_(file, std::ios::binary) {}
    std::uint32_t number() {
        std::uint32_t value = 0;
        in_.read(reinterpret_cast<char*>(&value), sizeof value);
        if (!in_) throw std::runtime_error("cannot read " + file_);
        return value;
    }
    std::vector<std::uint8_t> bytes() {
        std::vector<std::uint8_t> b(number());
        in_.read(reinterpret_cast<char*>(b.data()), static_cast<std::streamsize>(b.size()));
        if (!in_) throw std::runtime_error("cannot read " + file_);
        return b;
    }

  private:
    std::string file_;
    std::ifstream in_;
};

} // namespace

std::uint32_t allocated_spi(const answer& a) {
    for (const heard& h : a) {
        xfrm::bytes rest(h.bytes);
        const auto m = xfrm::next_message(rest);
        if (h.group != 0 || !m || m->header.nlmsg_type != XFRM_MSG_NEWSA) continue;
        if (const auto info = xfrm::read_fixed<xfrm_usersa_info>(m->payload())) return info->id.spi;
    }
    return 0;
}

std::vector<std::uint8_t> patched(const question& q, const std::vector<std::uint32_t>& spis,
                                  std::uint64_t began_s) {
    std::vector<std::uint8_t> bytes = q.bytes;
    for (const std::uint32_t at : q.times) {
        std::uint64_t time = 0;
        std::memcpy(&time, bytes.data() + at, sizeof time);
        time += began_s;
        std::memcpy(bytes.data() + at, &time, sizeof time);
    }
    for (const patch& p : q.patches)
        std::memcpy(bytes.data() + p.at, &spis.at(p.from), sizeof(std::uint32_t));
    return bytes;
}

bool wants_patience(const question& q) {
    xfrm::bytes rest(q.bytes);
    while (const auto m = xfrm::next_message(rest))
        if (m->header.nlmsg_type == XFRM_MSG_UPDSA || m->header.nlmsg_type == XFRM_MSG_NEWAE)
            return true;
    return false;
}

void write_sessions(const std::string& file, const std::vector<session>& all) {
    writer out(file);
    out.number(all.size());
    for (const session& s : all) {
        out.number(s.capped_acks);
        out.number(s.extended_acks);
        out.number(s.timed);
        out.number(s.asked.size());
        for (const question& q : s.asked) {
            out.bytes(q.bytes);
            out.number(q.patches.size());
            for (const patch& p : q.patches) {
                out.number(p.at);
                out.number(p.from);
            }
            out.number(q.times.size());
            for (const std::uint32_t at : q.times)
                out.number(at);
            out.number(q.packets);
            out.number(q.wait_ms);
        }
    }
    out.close();
}

std::vector<session> read_sessions(const std::string& file) {
    reader in(file);
    std::vector<session> all(in.number());
    for (session& s : all) {
        s.capped_acks = in.number() != 0;
        s.extended_acks = in.number() != 0;
        s.timed = in.number() != 0;
        s.asked.resize(in.number());
        for (question& q : s.asked) {
            q.bytes = in.bytes();
            q.patches.resize(in.number());
            for (patch& p : q.patches) {
                p.at = in.number();
                p.from = in.number();
            }
            q.times.resize(in.number());
            for (std::uint32_t& at : q.times)
                at = in.number();
            q.packets = in.number();
            q.wait_ms = in.number();
        }
    }
    return all;
}

void write_answers(const std::string& file, const std::vector<answers>& all) {
    writer out(file);
    out.number(all.size());
    for (const answers& one : all) {
        out.number(one.began_s);
        out.number(one.all.size());
        for (const answer& a : one.all) {
            out.number(a.size());
            for (const heard& h : a) {
                out.number(h.group);
                out.number(h.at_ms);
                out.number(h.later);
                out.bytes(h.bytes);
            }
        }
    }
    out.close();
}

std::vector<answers> read_answers(const std::string& file) {
    reader in(file);
    std::vector<answers> all(in.number());
    for (answers& one : all) {
        one.began_s = in.number();
        one.all.resize(in.number());
        for (answer& a : one.all) {
            a.resize(in.number());
            for (heard& h : a) {
                h.group = in.number();
                h.at_ms = in.number();
                h.later = in.number() != 0;
                h.bytes = in.bytes();
            }
        }
    }
    return all;
}

} // namespace esplane::tests::oracle
