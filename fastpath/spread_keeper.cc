// SPDX-License-Identifier: Apache-2.0
#include "fastpath/spread_keeper.h"

namespace esplane::fastpath {

std::shared_ptr<spread_out> spread_keeper::begin(sa_out& sa,
                                                 std::vector<std::unique_ptr<sa_out>> shares) {
    const auto workers = static_cast<unsigned>(shares.size());
    const unsigned owner = sa.owner.keep();
    auto all = std::make_shared<spread_out>(workers, owner < workers ? owner : 0);
    all->shares = std::move(shares);
    if (!shared_.spread_outbound().add(*all)) return nullptr;
    sa.spread.store(all.get(), std::memory_order_release);
    sa.owner.wish_spread();
    return all;
}

std::shared_ptr<spread_in> spread_keeper::begin(sa_in& sa, unsigned workers) {
    auto all = std::make_shared<spread_in>(workers, &sa, sa.owner.keep());
    if (!shared_.spread_inbound().add(*all)) return nullptr;
    sa.spread.store(all.get(), std::memory_order_release);
    return all;
}

template <typename Spread>
void spread_keeper::end(std::vector<ended<Spread>>& list, std::shared_ptr<Spread> all) {
    auto quiet = std::make_shared<std::atomic<bool>>(false);
    shared_.graveyard().add([quiet] { quiet->store(true); });
    list.push_back({std::move(all), std::move(quiet)});
}

void spread_keeper::end(std::shared_ptr<spread_out> all) {
    end(out_, std::move(all));
}

void spread_keeper::end(std::shared_ptr<spread_in> all) {
    all->sa.store(nullptr, std::memory_order_release);
    end(in_, std::move(all));
}

template <typename Spread>
void spread_keeper::tend(std::vector<ended<Spread>>& list, spread_table<Spread>& table) {
    std::erase_if(list, [&](const ended<Spread>& e) {
        if (!e.quiet->load() || !e.all->order.settled()) return false;
        table.remove(*e.all);
        shared_.graveyard().add([all = e.all] {});
        return true;
    });
}

void spread_keeper::tend() {
    if (ending() == 0) return;
    tend(out_, shared_.spread_outbound());
    tend(in_, shared_.spread_inbound());
    shared_.graveyard().reclaim();
}

} // namespace esplane::fastpath
