// SPDX-License-Identifier: Apache-2.0
#include "fastpath/lasting.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <new>
#include <optional>
#include <sys/mman.h>
#include <sys/stat.h>

#include "fastpath/sa.h"
#include "lib/base/sanitizer.h"
#include "lib/wire/endian.h"

namespace esplane::fastpath {

namespace {

constexpr std::array<char, 8> magic{'E', 'S', 'P', 'L', 'L', 'A', 'S', 'T'};
constexpr std::uint32_t version = 2;
constexpr std::size_t header_size = 4096; ///< the rest before the first chunk is a hole
constexpr std::size_t line = 64;

struct file_header {
    std::array<char, 8> magic;
    std::uint32_t version;
    std::uint32_t chunk_size;
    lasting_name name;
    lasting_layout inbound;
    lasting_layout outbound;
    std::uint32_t incomplete; ///< there was no room for some; 0: all are there
};
static_assert(sizeof(file_header) <= header_size);

/// What stands at the start of a chunk in the file.
struct chunk_label {
    lasting_kind kind;
    std::uint32_t size;
};

constexpr std::size_t first_object = line;

/// In the file: so that huge pages can hold it.
constexpr std::size_t place_of_chunk(std::size_t n) noexcept {
    return (n + 1) * lasting_memory::chunk_size;
}

/// How a version wrote it.
struct file_form {
    std::size_t first_chunk;
    std::size_t chunk_size;
    bool says_what_is_missing;
};
std::optional<file_form> form_of(const file_header& h) noexcept {
    if (h.magic != magic) return {};
    constexpr file_form first{header_size, std::size_t{1} << 20, false}; // not always
    if (h.version == 1 && h.chunk_size == first.chunk_size) return first;
    constexpr file_form present{place_of_chunk(0), lasting_memory::chunk_size, true};
    if (h.version == version && h.chunk_size == present.chunk_size) return present;
    return {};
}

std::uint32_t distance(const void* object, const void* member) noexcept {
    return static_cast<std::uint32_t>(static_cast<const std::uint8_t*>(member) -
                                      static_cast<const std::uint8_t*>(object));
}

lasting_layout layout_of_inbound() {
    sa_in sa;
    const auto at = [&](const void* member) { return distance(&sa, member); };
    return {sizeof sa,
            at(&sa.in_force),
            at(&sa.destination),
            at(&sa.spi),
            at(&sa.mark),
            at(sa.window.place_of_highest()),
            at(&sa.account.packets),
            at(&sa.account.bytes),
            at(&sa.account.last_used),
            at(&sa.limits.use_time)};
}

lasting_layout layout_of_outbound() {
    sa_out sa;
    const auto at = [&](const void* member) { return distance(&sa, member); };
    return {sizeof sa,
            at(&sa.in_force),
            at(&sa.id.destination),
            at(&sa.id.spi),
            at(&sa.id.mark),
            at(&sa.sequence_sent),
            at(&sa.account.packets),
            at(&sa.account.bytes),
            at(&sa.account.last_used),
            at(&sa.limits.use_time)};
}

/// A chunk's place in memory: aligned, so that an object finds its chunk.
std::uint8_t* map_chunk(int file, off_t at) {
    constexpr std::size_t size = lasting_memory::chunk_size;
    void* const reserved =
        ::mmap(nullptr, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED) return nullptr;
    auto* const start = static_cast<std::uint8_t*>(reserved);
    const std::size_t skip = (size - reinterpret_cast<std::uintptr_t>(start) % size) % size;
    if (skip != 0) ::munmap(start, skip);
    ::munmap(start + skip + size, size - skip);
    void* const mapped =
        ::mmap(start + skip, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, at);
    if (mapped != MAP_FAILED) {
        show_to_leak_check(mapped, size);
        return static_cast<std::uint8_t*>(mapped);
    }
    ::munmap(start + skip, size);
    return nullptr;
}

void unmap_chunk(void* start) {
    hide_from_leak_check(start, lasting_memory::chunk_size);
    ::munmap(start, lasting_memory::chunk_size);
}

} // namespace

struct lasting_memory::chunk {
    chunk_label label;
    lasting_memory* owner;
    off_t place; ///< in the file; 0: in none
};

result<std::unique_ptr<lasting_memory>> lasting_memory::make(unique_fd file,
                                                             const lasting_name& name) {
    std::unique_ptr<lasting_memory> memory(new lasting_memory);
    memory->file_ = std::move(file);
    if (::fallocate(memory->file_.get(), 0, 0, header_size) != 0) return fail_errno("live numbers");
    const file_header h{magic, version, chunk_size, name, layout_of_inbound(), layout_of_outbound(),
                        0};
    if (::pwrite(memory->file_.get(), &h, sizeof h, 0) != sizeof h)
        return fail_errno("live numbers");
    return memory;
}

lasting_memory::~lasting_memory() {
    for (chunk* c : chunks_)
        if (c->place != 0)
            unmap_chunk(c);
        else
            huge_memory::give_back(c, chunk_size);
}

/// Where a chunk cannot be mapped anew it is left where it is, and its SAs do not last.
void lasting_memory::detach() {
    const std::lock_guard lock(mutex_);
    for (const chunk* c : chunks_)
        if (c->place != 0)
            (void)::mmap(const_cast<chunk*>(c), chunk_size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_FIXED, file_.get(), c->place);
}

lasting_memory& lasting_memory::of_this_process() {
    static lasting_memory& memory = *new lasting_memory; // objects may outlive all else
    return memory;
}

/// Room is taken before it is touched: a full tmpfs would be a SIGBUS.
bool lasting_memory::grow_file() {
    const auto at = static_cast<off_t>(place_of_chunk(chunks_in_file_));
    return file_.valid() && ::fallocate(file_.get(), 0, at, chunk_size) == 0;
}

void lasting_memory::note_shortage() {
    short_of_.fetch_add(1, std::memory_order_relaxed);
    constexpr std::uint32_t yes = 1;
    (void)!::pwrite(file_.get(), &yes, sizeof yes, offsetof(file_header, incomplete));
}

void lasting_memory::fill(lasting_kind kind, std::size_t size, bool touched) {
    const bool lasts = grow_file();
    if (file_.valid() && !lasts) note_shortage();
    const auto at = static_cast<off_t>(place_of_chunk(chunks_in_file_));
    void* const start = lasts ? map_chunk(file_.get(), at)
                              : huge_memory::take(chunk_size, huge_memory::pages::small);
    if (start == nullptr) std::abort(); // as operator new does where nothing may throw
    if (touched) huge_memory::make_huge(start);
    if (lasts) ++chunks_in_file_;
    auto* const c =
        new (start) chunk{{kind, static_cast<std::uint32_t>(size)}, this, lasts ? at : 0};
    chunks_.push_back(c);
    auto& free = free_[static_cast<std::size_t>(kind)];
    auto* const objects = static_cast<std::uint8_t*>(start) + first_object;
    const std::size_t count = (chunk_size - first_object) / size;
    for (std::size_t i = count; i != 0; --i) // so that they are given from the front
        free.push_back(objects + (i - 1) * size);
}

void* lasting_memory::take(lasting_kind kind, std::size_t size) {
    const std::lock_guard lock(mutex_);
    auto& free = free_[static_cast<std::size_t>(kind)];
    if (free.empty())
        fill(kind, size, std::ranges::any_of(chunks_, [kind](const chunk* c) {
                 return c->label.kind == kind;
             }));
    void* const object = free.back();
    free.pop_back();
    return object;
}

void lasting_memory::reserve(lasting_kind kind, std::size_t size, std::size_t count) {
    const std::lock_guard lock(mutex_);
    while (free_[static_cast<std::size_t>(kind)].size() < count)
        fill(kind, size, true);
}

void lasting_memory::give_back(void* object) noexcept {
    const auto start = reinterpret_cast<std::uintptr_t>(object) & ~(chunk_size - 1);
    const chunk& c = *reinterpret_cast<const chunk*>(start);
    std::memset(object, 0, c.label.size);
    const std::lock_guard lock(c.owner->mutex_);
    c.owner->free_[static_cast<std::size_t>(c.label.kind)].push_back(object);
}

namespace {

/// A file of another process, read where it stands.
class lasting_file {
  public:
    static result<lasting_file> open(int file) {
        struct stat st {};
        if (::fstat(file, &st) != 0) return fail_errno("live numbers");
        const auto size = static_cast<std::size_t>(st.st_size);
        if (size < header_size) return fail(EINVAL, "live numbers: not a file of esplane's");
        void* const start = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0);
        if (start == MAP_FAILED) return fail_errno("live numbers");
        return lasting_file(static_cast<const std::uint8_t*>(start), size);
    }
    lasting_file(lasting_file&& other) noexcept
        : start_(std::exchange(other.start_, nullptr))
        , size_(other.size_) {}
    lasting_file(const lasting_file&) = delete;
    lasting_file& operator=(const lasting_file&) = delete;
    ~lasting_file() {
        if (start_ != nullptr) ::munmap(const_cast<std::uint8_t*>(start_), size_);
    }

    template <typename T>
    [[nodiscard]] T at(std::size_t offset) const noexcept {
        return wire::load<T>(start_ + offset);
    }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

  private:
    lasting_file(const std::uint8_t* start, std::size_t size) noexcept
        : start_(start)
        , size_(size) {}

    const std::uint8_t* start_;
    std::size_t size_;
};

bool is_sound(const lasting_layout& l) noexcept {
    const auto fits = [&](std::uint32_t at, std::size_t length) {
        return at <= l.size && l.size - at >= length;
    };
    const bool numbers = fits(l.number, 8) && fits(l.packets, 8) && fits(l.bytes, 8) &&
                         fits(l.last_used, 8) && fits(l.use_time, 8);
    return l.size >= line && l.size <= lasting_memory::chunk_size / 2 && numbers &&
           fits(l.in_force, 1) && fits(l.destination, sizeof(ipsec::address)) && fits(l.spi, 4) &&
           fits(l.mark, sizeof(ipsec::mark_mask));
}

lasting_numbers read_object(const lasting_file& file, std::size_t at, lasting_kind kind,
                            const lasting_layout& l) {
    const auto number = [&](std::uint32_t member) { return file.at<std::uint64_t>(at + member); };
    lasting_numbers n;
    n.place = at;
    n.kind = kind;
    n.id.destination = file.at<ipsec::address>(at + l.destination);
    n.id.spi = file.at<wire::be32>(at + l.spi);
    n.id.mark = file.at<ipsec::mark_mask>(at + l.mark);
    n.number = number(l.number);
    n.packets = number(l.packets);
    n.bytes = number(l.bytes);
    n.last_used = number(l.last_used);
    n.use_time = number(l.use_time);
    return n;
}

void read_chunk(const lasting_file& file, std::size_t start, std::size_t size, const file_header& h,
                const std::function<void(const lasting_numbers&)>& f) {
    const auto label = file.at<chunk_label>(start);
    if (label.kind != lasting_kind::inbound && label.kind != lasting_kind::outbound) return;
    const lasting_layout& l = label.kind == lasting_kind::inbound ? h.inbound : h.outbound;
    for (std::size_t at = first_object; at + l.size <= size; at += l.size)
        if (file.at<std::uint8_t>(start + at + l.in_force) != 0)
            f(read_object(file, start + at, label.kind, l));
}

} // namespace

result<bool> read_lasting(int file, const lasting_name& name,
                          const std::function<void(const lasting_numbers&)>& f) {
    const auto opened = lasting_file::open(file);
    if (!opened) return tl::unexpected(opened.error());
    const auto h = opened->at<file_header>(0);
    const auto form = form_of(h);
    if (!form || !is_sound(h.inbound) || !is_sound(h.outbound))
        return fail(EINVAL, "live numbers: not a file of esplane's, or of another version");
    if (h.name != name) return fail(EINVAL, "live numbers: of another state");
    const std::size_t size = form->chunk_size;
    for (std::size_t at = form->first_chunk; at + size <= opened->size(); at += size)
        read_chunk(*opened, at, size, h, f);
    return form->says_what_is_missing && h.incomplete == 0;
}

} // namespace esplane::fastpath
