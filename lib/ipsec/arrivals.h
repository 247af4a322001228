// SPDX-License-Identifier: Apache-2.0
//
// Entries in order of arrival, owned: what the databases are walked by.
//
//   [ 1: e ][ 2: e ][ 3: gap ][ 4: e ] ...
//
// 16 bytes an entry.  Finding one takes time logarithmic in their number; taking one out leaves a
// gap, and one in as many as there are closes them all.  Entry has a member `serial`, which this
// gives: from 1 up, never twice.
// Threads: as any container.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>

namespace esplane::ipsec {

template <typename Entry>
class arrivals {
  public:
    /// Of the next that comes.
    [[nodiscard]] std::uint64_t next_serial() const noexcept { return last_ + 1; }
    /// From now on none below `serial` is given.
    void go_on_from(std::uint64_t serial) noexcept {
        if (serial > last_) last_ = serial - 1;
    }
    Entry& put(std::unique_ptr<Entry> e) {
        e->serial = ++last_;
        return *all_.emplace_back(arrival{last_, std::move(e)}).there;
    }

    /// The newest whose serial is at most `serial`; nullptr at the end of a walk.
    [[nodiscard]] Entry* newest_from(std::uint64_t serial) noexcept {
        auto after = std::ranges::upper_bound(all_, serial, {}, &arrival::serial);
        while (after != all_.begin())
            if (const auto& e = (--after)->there) return e.get();
        return nullptr;
    }
    [[nodiscard]] Entry* find(std::uint64_t serial) noexcept {
        Entry* const e = newest_from(serial);
        return e != nullptr && e->serial == serial ? e : nullptr;
    }

    /// Takes out one that is here.
    std::unique_ptr<Entry> take(std::uint64_t serial) {
        const auto at = std::ranges::lower_bound(all_, serial, {}, &arrival::serial);
        std::unique_ptr<Entry> gone = std::move(at->there);
        ++gaps_;
        close_gaps();
        return gone;
    }

    [[nodiscard]] std::size_t size() const noexcept { return all_.size() - gaps_; }

  private:
    struct arrival {
        std::uint64_t serial;
        std::unique_ptr<Entry> there; ///< nullptr: a gap
    };

    /// Those at both ends, and all where they are the greater part.
    void close_gaps() {
        const auto is_gap = [](const arrival& a) { return a.there == nullptr; };
        for (; !all_.empty() && is_gap(all_.back()); --gaps_)
            all_.pop_back();
        for (; !all_.empty() && is_gap(all_.front()); --gaps_)
            all_.pop_front();
        if (2 * gaps_ > all_.size()) {
            std::erase_if(all_, is_gap);
            gaps_ = 0;
        }
    }

    std::deque<arrival> all_; ///< oldest first; neither end is a gap
    std::size_t gaps_ = 0;
    std::uint64_t last_ = 0;
};

} // namespace esplane::ipsec
