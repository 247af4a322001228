// SPDX-License-Identifier: Apache-2.0
//
// What the server is behind its face: server.cc waits, hears of events and goes round; in
// server_connections.cc are clients that come, pass descriptors and go; in server_requests.cc is
// what they ask.
//
// Included by those files alone.
#pragma once

#include <unordered_map>
#include <unordered_set>

#include "lib/base/acceptor.h"
#include "lib/base/descriptor_passing.h"
#include "xfrm/client.h"
#include "xfrm/server.h"

namespace esplane::xfrm {

struct server::state final : private ipsec::listener {
    state(control::layer& l, std::string path, clock_source clock, unique_fd listening,
          unique_fd epoll);
    ~state() override;
    state(const state&) = delete;
    state& operator=(const state&) = delete;

    void serve();

    control::layer& layer_;
    dispatcher dispatcher_;
    std::string path_;
    clock_source clock_;
    unique_fd listening_;
    unique_fd epoll_;
    server_counters counters_;
    std::uint32_t exempt_mark_ = 0;
    tap tap_;
    proc_files* files_ = nullptr;

    /// What one client gets done before it is the next one's turn.
    static constexpr int turn = 16;

  private:
    class answers;

    void on_event(const ipsec::event& e) override;
    void note_groups();
    void show(traced::direction way, bytes whole, const client& c) const {
        if (tap_) tap_({way, whole, c.pid, c.state.port_id});
    }
    void linger();
    [[nodiscard]] bool serve_hot();
    void let_sleep();

    // Clients that come and go
    void accept_clients();
    [[nodiscard]] bool may_connect(int fd, std::uint32_t& pid) const;
    [[nodiscard]] std::uint32_t free_port(std::uint32_t wanted);
    void free_port_of_the_dead(std::uint32_t port);
    [[nodiscard]] std::uint64_t free_number();
    void disconnect(std::uint64_t number);
    [[nodiscard]] side_channel* add_side(std::uint64_t number, client& c, unique_fd side);
    void unwatch(const unique_fd& socket) const;
    void drop_side(client& c, std::uint32_t number) const;
    [[nodiscard]] bool attach(std::uint64_t number, client& c, unique_fd side);
    [[nodiscard]] bool share(client& c, const shim_header& h, const unique_fd& memory);

    /// joined: the connection is another client's now.
    enum class reading { taken, nothing, joined, broken };
    [[nodiscard]] reading open_data(std::uint64_t number, client& c, unique_fd data, bytes body);
    void join(std::uint64_t number, client& c, unique_fd connection, const shim_had& had);
    void restore(client& c, const shim_had& had);

    // What they ask
    void serve_data(std::uint64_t number, client& c, std::uint32_t events);
    [[nodiscard]] reading read_data(std::uint64_t number, client& c);
    [[nodiscard]] reading take(std::uint64_t number, client& c, passed_datagram&& r);
    void request(client& c, const shim_header& h, bytes messages);
    struct outcome;
    [[nodiscard]] outcome carry_out(client& c, const shim_header& h, bytes messages,
                                    bool keeps_reply);
    void serve_slates(std::uint64_t number, client& c);
    [[nodiscard]] bool serve_slate(std::uint64_t number, client& c, std::uint32_t channel);
    void wake_for(std::uint64_t number, client& c, std::uint32_t channel);
    [[nodiscard]] bool file(client& c, const shim_header& h, std::string_view what);
    void send_dump(client& c);
    void update_interest(std::uint64_t number, client& c);
    void serve_side(client& c, std::uint32_t side);
    void control(client& c, side_channel& side, const shim_control& what);
    void reset(client& c);
    [[nodiscard]] std::uint32_t bind_port(client& c, std::uint32_t port);
    [[nodiscard]] shim_answer answer_of(const client& c, std::uint32_t channel, std::uint16_t kind,
                                        std::uint32_t id, std::uint32_t status) const;
    void tell(const client& c, const side_channel& side, std::uint16_t kind, std::uint32_t id,
              std::uint32_t status) const;

    acceptor acceptor_;
    datagram buffer_;
    std::unordered_map<std::uint64_t, std::unique_ptr<client>> clients_;
    std::uint32_t next_client_ = 1;
    std::unordered_set<std::uint32_t> ports_;
    std::uint32_t next_port_ = ~std::uint32_t{4096}; // where the kernel starts making them up
    /// Slates that are looked at: number of the client, of its side channel.
    std::vector<std::pair<std::uint64_t, std::uint32_t>> hot_;
};

/// In epoll_event: a client's number and which of its sockets; 0 is the listening socket.
[[nodiscard]] constexpr std::uint64_t key_of(std::uint64_t client, std::uint32_t side) noexcept {
    return client << 32 | side;
}

[[nodiscard]] result<void> watch(int epoll, int op, int fd, std::uint32_t events,
                                 std::uint64_t key);

} // namespace esplane::xfrm
