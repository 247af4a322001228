// SPDX-License-Identifier: Apache-2.0
#include "bench/esp_judge.h"

namespace esplane::bench {

namespace {

class openssl_contender final : public contender {
  public:
    explicit openssl_contender(std::shared_ptr<const traffic> packets)
        : contender(std::move(packets))
        , memory_(of().pool()) {
        for (std::uint32_t n = 0; n < of().sas; ++n)
            keys_.emplace_back(*of().suite, n, of().outbound);
        work_.resize(of().pool());
    }

  protected:
    void prepare() override {
        for (unsigned i = 0; i < of().pool(); ++i) {
            const unsigned n = nth(i);
            const std::span<const std::uint8_t> inner = packets().inner(n);
            work_[i] = {&keys_[packets().sa_of(n)], memory_.at(i),
                        text_length(*of().suite, static_cast<std::uint32_t>(inner.size())), true};
            if (of().outbound)
                lay_out(*of().suite, packets().sa_of(n), ++sequence_, inner, work_[i].esp);
            else
                copy_esp(packets().sealed(n), work_[i].esp);
        }
    }
    void run() noexcept override {
        if (of().outbound)
            for (const packet& p : work_)
                p.keys->encrypt(p.esp, p.text);
        else
            for (packet& p : work_)
                p.ok = p.keys->decrypt(p.esp, p.text);
    }
    [[nodiscard]] bytes output(unsigned i) const override {
        const packet& p = work_[i];
        return p.ok ? esp_or_inner(packets(), nth(i), p.esp) : bytes{};
    }

  private:
    struct packet {
        const esp_keys* keys;
        std::uint8_t* esp;
        std::uint32_t text;
        bool ok;
    };

    packet_memory memory_;
    std::vector<esp_keys> keys_;
    std::vector<packet> work_;
    std::uint32_t sequence_ = 0;
};

} // namespace

std::unique_ptr<contender> openssl(std::shared_ptr<const traffic> packets) {
    return std::make_unique<openssl_contender>(std::move(packets));
}

} // namespace esplane::bench
