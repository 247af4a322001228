// SPDX-License-Identifier: Apache-2.0
#include "lib/base/slab.h"

#include <new>
#include <utility>

#include "lib/base/sanitizer.h"
#include "lib/base/secret.h"

namespace esplane {

/// At the start of its memory, so that an object finds it.
struct slab::chunk {
    slab* owner;
    chunk* next = nullptr; ///< of those with room
    chunk* previous = nullptr;
    free_object* free = nullptr; ///< given back
    std::uint32_t untouched;     ///< objects behind all that were ever given
    std::uint32_t in_use = 0;

    chunk(slab* of, std::uint32_t objects) noexcept
        : owner(of)
        , untouched(objects) {}
    [[nodiscard]] bool has_room() const noexcept { return free != nullptr || untouched != 0; }
    [[nodiscard]] std::uint8_t* end() noexcept {
        return reinterpret_cast<std::uint8_t*>(this) + huge_memory::page;
    }
};

slab::~slab() {
    while (with_room_ != nullptr)
        release(with_room_);
}

void* slab::take() noexcept {
    const std::lock_guard lock(mutex_);
    chunk* const c = with_room_ != nullptr ? with_room_ : add_chunk();
    if (c == nullptr) return nullptr;
    void* object = c->free;
    if (object != nullptr) {
        allow_touch(object, size_);
        c->free = c->free->next;
        *static_cast<free_object**>(object) = nullptr;
    } else {
        object = c->end() - c->untouched-- * size_; // from the front
    }
    ++c->in_use;
    if (!c->has_room()) delist(c);
    return object;
}

void slab::give_back(void* object) noexcept {
    if (object == nullptr) return;
    const auto at = reinterpret_cast<std::uintptr_t>(object);
    chunk* const c = reinterpret_cast<chunk*>(at & ~(huge_memory::page - 1));
    slab& owner = *c->owner;
    wipe(object, owner.size_);
    const std::lock_guard lock(owner.mutex_);
    const bool was_full = !c->has_room();
    c->free = new (object) free_object{c->free};
    forbid_touch(object, owner.size_);
    if (was_full) owner.enlist(c);
    const bool is_only = owner.with_room_ == c && c->next == nullptr;
    if (--c->in_use == 0 && !is_only) owner.release(c);
}

std::size_t slab::chunks() const noexcept {
    const std::lock_guard lock(mutex_);
    return chunks_;
}

slab::chunk* slab::add_chunk() noexcept {
    void* const memory = huge_memory::take(huge_memory::page, huge_memory::pages::small);
    if (memory == nullptr) return nullptr;
    static_assert(sizeof(chunk) <= line);
    const auto objects = static_cast<std::uint32_t>((huge_memory::page - line) / size_);
    auto* const c = new (memory) chunk(this, objects);
    if (chunks_++ == 0)
        on_small_pages_ = c;
    else
        make_huge(c);
    enlist(c);
    return c;
}

/// And the one that began on small pages.
void slab::make_huge(chunk* added) noexcept {
    huge_memory::make_huge(added);
    if (on_small_pages_ != nullptr) huge_memory::make_huge(std::exchange(on_small_pages_, nullptr));
}

void slab::release(chunk* c) noexcept {
    delist(c);
    --chunks_;
    if (c == on_small_pages_) on_small_pages_ = nullptr;
    allow_touch(c, huge_memory::page);
    huge_memory::give_back(c, huge_memory::page);
}

void slab::enlist(chunk* c) noexcept {
    c->previous = nullptr;
    c->next = with_room_;
    if (with_room_ != nullptr) with_room_->previous = c;
    with_room_ = c;
}

void slab::delist(chunk* c) noexcept {
    (c->previous != nullptr ? c->previous->next : with_room_) = c->next;
    if (c->next != nullptr) c->next->previous = c->previous;
}

} // namespace esplane
