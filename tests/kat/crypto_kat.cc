// SPDX-License-Identifier: Apache-2.0
//
// The crypto engine against published vectors.
//
//   kat_crypto packets FILE    whole ESP packets: *_packets.txt beside this file
//   kat_crypto nist            NIST's, OpenSSL's, RFC 2202's and RFC 4231's, from Debian's
//                              python3-cryptography-vectors, or the directory that ESPLANE_VECTORS
//                              names
//   kat_crypto wycheproof      Wycheproof's, from the directory that ESPLANE_WYCHEPROOF names
//
// All of it twice: with the GCM kernel, and with the library alone.
//
// Exit status: 0 all passed, 1 one failed or none ran, 77 the vectors are not here.
//
// Vectors of bare primitives are put into the shape of a packet:
//
//   AEAD, AAD of 8 or 12 bytes   the AAD is the ESP header (with ESN: SPI, high half, low half);
//                                nonce, ciphertext and tag must come out, tampered ones be refused
//   AEAD, any other AAD          the ciphertext does not depend on the AAD: it must come out; the
//                                tag is OpenSSL's over the ESP header
//   CBC                          the ciphertext must come out as the text
//   HMAC                         the message's first 8 bytes are the ESP header, the rest is the
//                                text under NULL; the ICV must be the first bytes of the MAC
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "lib/crypto/engine.h"
#include "tests/kat/vector_file.h"
#include "tests/unit/crypto/openssl_esp.h"

namespace esplane::test {
namespace {

constexpr int exit_skipped = 77;
constexpr std::size_t nonce_length = 12;
constexpr std::size_t salt_length = 4;

/// Counts what ran, by group, and says what failed.
class tally {
  public:
    void check(const std::string& group, const std::string& id, bool passed) {
        ++ran_[group];
        if (passed) return;
        ++failed_;
        std::printf("FAILED %s: %s\n", id.c_str(), group.c_str());
    }
    void does_not_fit(const std::string& file) { ++unfit_[file]; }

    [[nodiscard]] int report() const {
        for (const auto& [group, count] : ran_)
            std::printf("%6u ran: %s\n", count, group.c_str());
        for (const auto& [file, count] : unfit_)
            std::printf("%6u of %s have not the shape of an ESP packet\n", count, file.c_str());
        if (ran_.empty()) std::printf("no vector ran\n");
        std::printf("%u failed\n", failed_);
        return ran_.empty() || failed_ > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    }

  private:
    std::map<std::string, unsigned> ran_;
    std::map<std::string, unsigned> unfit_;
    unsigned failed_ = 0;
};

bytes joined(std::initializer_list<bytes> parts) {
    bytes all;
    for (const bytes& part : parts)
        all.insert(all.end(), part.begin(), part.end());
    return all;
}

bytes head(const bytes& b, std::size_t n) {
    return {b.begin(), b.begin() + n};
}
bytes tail(const bytes& b, std::size_t from) {
    return {b.begin() + from, b.end()};
}

using high_half = std::optional<std::uint32_t>;

/// From its four bytes; without any there is no ESN.
high_half high_half_from(const bytes& b) {
    if (b.empty()) return std::nullopt;
    std::uint32_t n = 0;
    for (const std::uint8_t x : b)
        n = n << 8 | x;
    return n;
}

/// The engine, and one packet at a time through it.
class subject {
  public:
    explicit subject(crypto::engine& e)
        : engine_(e) {}

    bytes seal(const sa_keys& keys, const bytes& clear, const high_half& seq_high) {
        bytes packet = clear;
        packet.resize(clear.size() + ipsec::layout_of(keys.run).icv_length);
        const auto expanded = expand(keys);
        crypto::job todo = job_for(*expanded, packet, seq_high);
        engine_.encrypt({&todo, 1});
        return packet;
    }

    /// Header, IV and text in clear; nothing where the packet was refused.
    std::optional<bytes> open(const sa_keys& keys, bytes packet, const high_half& seq_high) {
        const auto expanded = expand(keys);
        crypto::job todo = job_for(*expanded, packet, seq_high);
        engine_.decrypt({&todo, 1});
        if (!todo.ok) return std::nullopt;
        packet.resize(packet.size() - ipsec::layout_of(keys.run).icv_length);
        return packet;
    }

    /// Encrypts to `sealed`, decrypts to `clear`, as they were published.
    bool both_ways(const sa_keys& keys, const bytes& clear, const bytes& sealed,
                   const high_half& seq_high = {}) {
        return seal(keys, clear, seq_high) == sealed && open(keys, sealed, seq_high) == clear;
    }

  private:
    static std::shared_ptr<const crypto::key> expand(const sa_keys& keys) {
        auto made = crypto::key::make(algorithms_for(keys));
        if (!made) throw std::runtime_error(made.error().text);
        return *made;
    }
    static crypto::job job_for(const crypto::key& k, bytes& packet, const high_half& seq_high) {
        const ipsec::suite_layout layout = ipsec::layout_of(k.run());
        const std::size_t around = esp_header_length + layout.iv_length + layout.icv_length;
        return {.keys = &k.get(),
                .esp = packet.data(),
                .text_length = static_cast<std::uint32_t>(packet.size() - around),
                .seq_high = seq_high.value_or(0),
                .esn = seq_high.has_value()};
    }

    crypto::engine& engine_;
};

ipsec::suite gcm_suite(std::size_t key_length) {
    return key_length == 16   ? ipsec::suite::aes128_gcm16
           : key_length == 24 ? ipsec::suite::aes192_gcm16
                              : ipsec::suite::aes256_gcm16;
}

ipsec::suite cbc_sha256_suite(std::size_t key_length) {
    return key_length == 16   ? ipsec::suite::aes128_cbc_sha256_128
           : key_length == 24 ? ipsec::suite::aes192_cbc_sha256_128
                              : ipsec::suite::aes256_cbc_sha256_128;
}

ipsec::suite cbc_sha1_suite(std::size_t key_length) {
    return key_length == 16   ? ipsec::suite::aes128_cbc_sha1_96
           : key_length == 24 ? ipsec::suite::aes192_cbc_sha1_96
                              : ipsec::suite::aes256_cbc_sha1_96;
}

struct aead_vector {
    ipsec::suite run;
    bytes key, iv, aad, text, ciphertext, tag;
    bool valid;

    [[nodiscard]] sa_keys keys() const { return {run, key, head(iv, salt_length), {}}; }
    [[nodiscard]] std::string group(const char* what) const {
        return std::string(is_gcm(run) ? "GCM, " : "ChaCha20-Poly1305, ") + what;
    }
};

/// The AAD is the ESP header: everything must come out.
void check_aead_packet(subject& s, tally& t, const std::string& id, const aead_vector& v) {
    const high_half seq_high = high_half_from({v.aad.begin() + 4, v.aad.end() - 4});
    const bytes start =
        joined({head(v.aad, 4), tail(v.aad, v.aad.size() - 4), tail(v.iv, salt_length)});
    const bytes packet = joined({start, v.ciphertext, v.tag});
    if (v.valid)
        t.check(v.group("whole packet"), id,
                s.both_ways(v.keys(), joined({start, v.text}), packet, seq_high));
    else
        t.check(v.group("refused"), id, !s.open(v.keys(), packet, seq_high));
}

/// The AAD is no ESP header: ciphertext from the vector, tag from OpenSSL.
void check_aead_ciphertext(subject& s, tally& t, const std::string& id, const aead_vector& v) {
    const bytes start = joined({bytes(esp_header_length), tail(v.iv, salt_length)});
    const bytes clear = joined({start, v.text});
    const bytes packet = openssl_seal(v.keys(), clear, std::nullopt);
    const bool as_published = head(packet, clear.size()) == joined({start, v.ciphertext});
    t.check(v.group("ciphertext"), id, as_published && s.both_ways(v.keys(), clear, packet));
}

void check_aead(subject& s, tally& t, const std::string& file, const std::string& id,
                const aead_vector& v) {
    const bool is_header = v.aad.size() == 8 || v.aad.size() == 12;
    if (v.iv.size() != nonce_length)
        t.does_not_fit(file);
    else if (is_header && v.tag.size() == aead_icv_length)
        check_aead_packet(s, t, id, v);
    else if (v.valid)
        check_aead_ciphertext(s, t, id, v);
    else
        t.does_not_fit(file);
}

struct hmac_vector {
    ipsec::suite run; ///< NULL with the hash
    bytes key, message, mac;
    bool valid;
};

void check_hmac(subject& s, tally& t, const std::string& file, const std::string& id,
                const hmac_vector& v) {
    const std::size_t icv_length = ipsec::layout_of(v.run).icv_length;
    // Of an invalid one with a longer MAC, the part that is wrong may be the part cut off.
    const bool decided = v.mac.size() >= icv_length && (v.valid || v.mac.size() == icv_length);
    if (v.message.size() < esp_header_length || !decided) {
        t.does_not_fit(file);
        return;
    }
    const std::string group = "HMAC of " + std::string(ipsec::name_of(v.run));
    const sa_keys keys{v.run, {}, {}, v.key};
    const bytes packet = joined({v.message, head(v.mac, icv_length)});
    if (v.valid)
        t.check(group, id, s.both_ways(keys, v.message, packet));
    else
        t.check(group + ", refused", id, !s.open(keys, packet, std::nullopt));
}

void check_cbc(subject& s, tally& t, const vector_record& r) {
    const bytes key = r.bytes("key");
    const bytes start = joined({bytes(esp_header_length), r.bytes("iv")});
    const bytes clear = joined({start, r.bytes("plaintext")});
    for (const ipsec::suite run : {cbc_sha256_suite(key.size()), cbc_sha1_suite(key.size())}) {
        const sa_keys keys{run, key, {}, bytes(32, 1)};
        const bytes packet = openssl_seal(keys, clear, std::nullopt);
        const bool as_published =
            head(packet, clear.size()) == joined({start, r.bytes("ciphertext")});
        t.check("CBC", r.id, as_published && s.both_ways(keys, clear, packet));
    }
}

int run_packets(subject& s, const std::filesystem::path& file) {
    tally t;
    for (const vector_record& r : read_vectors(file)) {
        const bytes key = r.bytes("key");
        const bytes packet = r.bytes("packet");
        const std::size_t start = esp_header_length + nonce_length - salt_length;
        const bytes cipher_key = head(key, key.size() - salt_length);
        const bool chacha = r.has("cipher") && r.text("cipher") == "chacha20-poly1305";
        const sa_keys keys{chacha ? ipsec::suite::chacha20_poly1305 : gcm_suite(cipher_key.size()),
                           cipher_key,
                           tail(key, key.size() - salt_length),
                           {}};
        const high_half seq_high =
            high_half_from(r.has("seq_high") ? r.bytes("seq_high") : bytes{});
        t.check(
            "whole packet", file.filename().string() + " id " + r.text("id"),
            s.both_ways(keys, joined({head(packet, start), r.bytes("text")}), packet, seq_high));
    }
    return t.report();
}

/// Calls `check` with each vector of the files in `directory` whose name starts with `prefix`.
void for_each_vector(const std::filesystem::path& directory, const std::string& prefix,
                     const std::function<void(const std::string&, const vector_record&)>& check) {
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
        const std::string name = entry.path().filename().string();
        if (!name.starts_with(prefix)) continue;
        for (const vector_record& r : read_vectors(entry.path()))
            check(name, r);
    }
}

int run_nist(subject& s, const std::filesystem::path& vectors) {
    tally t;
    for_each_vector(vectors / "ciphers/AES/GCM", "gcm", [&](const auto& file, const auto& r) {
        const bytes text = r.must_fail ? bytes{} : r.bytes("pt");
        const bytes key = r.bytes("key");
        check_aead(s, t, file, r.id,
                   {gcm_suite(key.size()), key, r.bytes("iv"), r.bytes("aad"), text, r.bytes("ct"),
                    r.bytes("tag"), !r.must_fail});
    });
    for_each_vector(vectors / "ciphers/ChaCha20Poly1305", "openssl",
                    [&](const auto& file, const auto& r) {
                        check_aead(s, t, file, r.id,
                                   {ipsec::suite::chacha20_poly1305, r.bytes("key"), r.bytes("iv"),
                                    r.bytes("aad"), r.bytes("plaintext"), r.bytes("ciphertext"),
                                    r.bytes("tag"), !r.has("result")});
                    });
    for_each_vector(vectors / "ciphers/AES/CBC", "CBC",
                    [&](const auto&, const auto& r) { check_cbc(s, t, r); });
    const auto check_hmacs = [&](const char* prefix, ipsec::suite run) {
        for_each_vector(vectors / "HMAC", prefix, [&](const auto& file, const auto& r) {
            check_hmac(s, t, file, r.id,
                       {run, r.bytes("key"), r.bytes("msg"), r.bytes("md"), true});
        });
    };
    check_hmacs("rfc-4231-sha256", ipsec::suite::null_sha256_128);
    check_hmacs("rfc-2202-sha1", ipsec::suite::null_sha1_96);
    return t.report();
}

/// Calls `check` with each test of a Wycheproof file.
void for_each_test(const std::filesystem::path& file,
                   const std::function<void(const std::string&, const nlohmann::json&)>& check) {
    std::ifstream in(file);
    if (!in) throw std::runtime_error("cannot read " + file.string());
    const nlohmann::json all = nlohmann::json::parse(in);
    for (const auto& group : all.at("testGroups"))
        for (const auto& test : group.at("tests"))
            check(file.filename().string() + " tcId " + test.at("tcId").dump(), test);
}

int run_wycheproof(subject& s, const std::filesystem::path& vectors) {
    tally t;
    const auto hex = [](const nlohmann::json& test, const char* name) {
        return from_hex(test.at(name).template get<std::string>());
    };
    const auto valid = [](const nlohmann::json& test) { return test.at("result") == "valid"; };
    const auto check_aeads = [&](const char* file, auto suite_for) {
        for_each_test(vectors / file, [&](const auto& id, const auto& test) {
            const bytes key = hex(test, "key");
            check_aead(s, t, file, id,
                       {suite_for(key.size()), key, hex(test, "iv"), hex(test, "aad"),
                        hex(test, "msg"), hex(test, "ct"), hex(test, "tag"), valid(test)});
        });
    };
    check_aeads("aes_gcm_test.json", gcm_suite);
    check_aeads("chacha20_poly1305_test.json",
                [](std::size_t) { return ipsec::suite::chacha20_poly1305; });
    const auto check_hmacs = [&](const char* file, ipsec::suite run) {
        for_each_test(vectors / file, [&](const auto& id, const auto& test) {
            check_hmac(s, t, file, id,
                       {run, hex(test, "key"), hex(test, "msg"), hex(test, "tag"), valid(test)});
        });
    };
    check_hmacs("hmac_sha256_test.json", ipsec::suite::null_sha256_128);
    check_hmacs("hmac_sha1_test.json", ipsec::suite::null_sha1_96);
    return t.report();
}

/// The directory that `variable` names, or else `fallback`; nothing where it does not exist.
std::optional<std::filesystem::path> directory_from(const char* variable, const char* fallback) {
    const char* named = std::getenv(variable);
    const std::filesystem::path directory = named != nullptr ? named : fallback;
    if (std::filesystem::is_directory(directory)) return directory;
    std::printf("skipped: no vectors at '%s': set %s to their directory\n", directory.c_str(),
                variable);
    return std::nullopt;
}

int run(const std::vector<std::string>& arguments, bool gcm_kernel) {
    const auto engine = crypto::engine::make({.gcm_kernel = gcm_kernel});
    if (!engine) throw std::runtime_error(engine.error().text);
    std::printf("GCM kernel %s\n", (*engine)->gcm_kernel());
    subject s(**engine);
    if (arguments.size() == 2 && arguments[0] == "packets") return run_packets(s, arguments[1]);
    if (arguments == std::vector<std::string>{"nist"}) {
        const auto vectors = directory_from("ESPLANE_VECTORS",
                                            "/usr/lib/python3/dist-packages/cryptography_vectors");
        return vectors ? run_nist(s, *vectors) : exit_skipped;
    }
    if (arguments == std::vector<std::string>{"wycheproof"}) {
        const auto vectors = directory_from("ESPLANE_WYCHEPROOF", "");
        return vectors ? run_wycheproof(s, *vectors) : exit_skipped;
    }
    throw std::runtime_error("use: kat_crypto packets FILE | nist | wycheproof");
}

} // namespace
} // namespace esplane::test

int main(int argc, char** argv) {
    try {
        const std::vector<std::string> arguments(argv + 1, argv + argc);
        const int with_small = esplane::test::run(arguments, true);
        return with_small != EXIT_SUCCESS ? with_small : esplane::test::run(arguments, false);
    } catch (const std::exception& e) {
        std::printf("FAILED: %s\n", e.what());
        return EXIT_FAILURE;
    }
}
