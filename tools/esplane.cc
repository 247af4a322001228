// SPDX-License-Identifier: Apache-2.0
//
// esplane: asks a running esplaned, runs clients against it, works on captures without it.
#include <algorithm>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "tools/control_socket.h"
#include "tools/interfaces.h"
#include "tools/offline.h"
#include "tools/options.h"
#include "tools/process.h"
#include "tools/release.h"
#include "tools/shim.h"
#include "tools/text.h"
#include "tools/trace_command.h"
#include "tools/version.h"
#ifdef ESPLANE_HAVE_XDP
#include "tools/xdp_helper.h"
#endif

namespace {

using namespace esplane;
using namespace esplane::tools;

constexpr int exit_failed = 1;
constexpr int exit_usage = 2;
constexpr int exit_not_found = 127; ///< of `run` and `xdp-helper`, as the shell has it

int report_failure(const error& e, int status = exit_failed) {
    std::cerr << "esplane: " << e.text << '\n';
    return status;
}

struct question {
    const char* command;
    const char* help;
    const char* pages_of; ///< the key under which pages are joined; nullptr: one reply
};

constexpr question questions[] = {
    {"status", "version, uptime, totals", nullptr},
    {"sa", "security associations, without their keys", "sas"},
    {"policy", "security policies", "policies"},
    {"ports", "ports and their counters", nullptr},
    {"drops", "packets lost, by reason", nullptr},
    {"workers", "packet threads: how busy, what they hand each other", nullptr},
    {"filter", "rules for what is in the tunnels, and what they decided", nullptr},
};

int ask(const std::string& run_dir, const question& q, bool as_json, bool verbose = false) {
    auto client = control_client::connect(run_dir);
    if (!client) return report_failure(client.error());
    const auto reply = q.pages_of != nullptr ? client->ask_all(q.command, q.pages_of)
                                             : client->ask({{"command", q.command}});
    if (!reply) return report_failure(reply.error());
    std::cout << (as_json ? reply->dump(2) + "\n" : text_of_reply(q.command, *reply));
    if (verbose && !as_json) std::cout << text_of_port_details(*reply);
    return 0;
}

/// [NAME[=VALUE]]
int ask_sysctl(const std::string& run_dir, const std::string& what, bool as_json) {
    nlohmann::json request = {{"command", "sysctl"}};
    const auto equals = what.find('=');
    if (!what.empty()) request["name"] = what.substr(0, equals);
    if (equals != std::string::npos) request["value"] = what.substr(equals + 1);
    auto client = control_client::connect(run_dir);
    if (!client) return report_failure(client.error());
    const auto reply = client->ask(request);
    if (!reply) return report_failure(reply.error());
    std::cout << (as_json ? reply->dump(2) + "\n" : text_of_reply("sysctl", *reply));
    return 0;
}

/// Makes an interface or takes it away.
int change_interface(const std::string& run_dir, const std::string& action,
                     const std::vector<std::string>& words, bool as_json) {
    const auto request = parse_interface_request(action, words);
    if (!request) return report_failure(request.error(), exit_usage);
    auto client = control_client::connect(run_dir);
    if (!client) return report_failure(client.error());
    const auto reply = client->ask(*request);
    if (!reply) return report_failure(reply.error());
    if (as_json) std::cout << reply->dump(2) << '\n';
    return 0;
}

int run(const std::string& run_dir, const std::vector<std::string>& command, bool supervised) {
    if (supervised) {
        const auto status = run_supervised_command(run_dir, command);
        if (status) return *status;
        return report_failure(status.error(),
                              status.error().field == "exec" ? exit_not_found : exit_failed);
    }
    const error e = run_command(run_dir, command);
    return report_failure(e, e.field == "exec" ? exit_not_found : exit_failed);
}

int release(const std::string& run_dir, bool as_json) {
    const auto released = release_devices(run_dir);
    if (!released) return report_failure(released.error());
    std::cout << (as_json ? report_release(*released).dump(2) + "\n" : text_of_release(*released));
    return std::all_of(released->begin(), released->end(),
                       [](const released_device& d) { return d.failure.empty(); })
               ? 0
               : exit_failed;
}

int follow_stream(const std::string& run_dir, const std::string& command, bool as_json) {
    const auto followed = follow(run_dir, command, as_json);
    return followed ? 0 : report_failure(followed.error());
}

/// What never became a packet, in one line; "" where there was nothing of the kind.
std::string text_of_unread(const nlohmann::json& unread) {
    std::string text;
    for (const auto& [what, count] : unread.items())
        if (count.get<std::uint64_t>() != 0)
            text += (text.empty() ? "frames not read: " : ", ") + what + " " + count.dump();
    return text.empty() ? text : text + "\n";
}

int work_offline(const offline_request& request, bool as_json) {
    if (!keep_memory_private())
        std::cerr << "esplane: core dumps cannot be turned off: one would hold keys\n";
    const auto outcome = run_offline(request);
    if (!outcome) return report_failure(outcome.error());
    if (as_json)
        std::cout << outcome->dump(2) << '\n';
    else
        std::cerr << "packets: " << text_of_packets(outcome->at("packets")) << '\n'
                  << text_of_unread(outcome->at("unread")) << text_of_drops(outcome->at("drops"));
    const auto& trouble = outcome->at("trouble");
    if (trouble.is_null()) return 0;
    return report_failure({EIO, request.input + ": ends early: " + trouble.get<std::string>(), {}});
}

/// `run` and `xdp-helper` take whatever follows as it is: CLI11 sees what stands before the
/// command.
struct split_arguments {
    std::vector<const char*> ours; ///< with argv[0]
    std::vector<std::string> command;
};

split_arguments split(int argc, const char* const* argv) {
    split_arguments s;
    bool running = false;
    int i = 0;
    for (; i < argc; ++i) {
        const std::string argument = argv[i];
        const bool option = argument.size() > 1 && argument.front() == '-';
        if (running && (argument == "--" || !option)) break;
        s.ours.push_back(argv[i]);
        if (argument == "--run-dir" && i + 1 < argc)
            s.ours.push_back(argv[++i]);
        else if (i != 0 && !option) {
            if (argument != "run" && argument != "xdp-helper") return {{argv, argv + argc}, {}};
            running = true;
        }
    }
    if (i < argc && std::string(argv[i]) == "--") ++i;
    s.command.assign(argv + i, argv + argc);
    return s;
}

int help_xdp(const std::vector<std::string>& command) {
#ifdef ESPLANE_HAVE_XDP
    const auto status = run_under_xdp_helper(command);
    if (status) return *status;
    const error& e = status.error();
    return report_failure(e, e.field == "exec" ? exit_not_found : exit_failed);
#else
    (void)command;
    return report_failure({ENOTSUP, "xdp-helper: this build has no AF_XDP ports", {}});
#endif
}

/// The command line: what it may say, and what is done then.
class command_line {
  public:
    command_line() {
        app_.set_version_flag("--version", version_line("esplane"));
        app_.add_option("--run-dir", run_dir_, "of the daemon")
            ->option_text("DIR [" + std::string(default_run_dir) + "]");
        app_.require_subcommand(0, 1);
        app_.fallthrough();
        add_run();
        for (const question& q : questions) {
            CLI::App* sub = app_.add_subcommand(q.command, q.help);
            add_json(sub);
            if (sub->get_name() == "ports")
                sub->add_flag("--verbose", verbose_, "also what the kind or the device counts");
            sub->final_callback(
                [this, q] { action_ = [this, q] { return ask(run_dir_, q, json_, verbose_); }; });
        }
        add_sysctl();
        add_helper();
        add_interface();
        add_trace();
        add_release();
        add_pcap();
    }

    int main(int argc, const char* const* argv) {
        const split_arguments arguments = split(argc, argv);
        command_ = arguments.command;
        try {
            app_.parse(static_cast<int>(arguments.ours.size()), arguments.ours.data());
        } catch (const CLI::CallForHelp&) {
            const auto chosen = app_.get_subcommands();
            std::cout << (chosen.empty() ? app_.help() : chosen.front()->help());
            return 0;
        } catch (const CLI::CallForVersion& e) {
            std::cout << e.what() << '\n';
            return 0;
        } catch (const CLI::ParseError& e) {
            return report_failure({EINVAL, std::string(e.what()) + ": see esplane --help", {}},
                                  exit_usage);
        }
        if (action_) return action_();
        return report_failure({EINVAL, "no command given: see esplane --help", {}}, exit_usage);
    }

  private:
    void add_json(CLI::App* sub) { sub->add_flag("--json", json_, "machine-readable"); }

    void add_run() {
        CLI::App* sub =
            app_.add_subcommand("run", "run an unmodified XFRM client: run -- COMMAND…");
        sub->add_flag("--seccomp", supervised_,
                      "reach statically linked programs, too; slower: see doc/clients.md");
        sub->final_callback(
            [this] { action_ = [this] { return run(run_dir_, command_, supervised_); }; });
    }

    void add_sysctl() {
        CLI::App* sub = app_.add_subcommand("sysctl", "net.core.xfrm_*, as esplaned uses them");
        sub->add_option("what", sysctl_, "one of them, shown or set")->option_text("NAME[=VALUE]");
        add_json(sub);
        sub->final_callback(
            [this] { action_ = [this] { return ask_sysctl(run_dir_, sysctl_, json_); }; });
    }

    void add_helper() {
        CLI::App* sub = app_.add_subcommand(
            "xdp-helper", "run an esplaned without privileges: xdp-helper -- setpriv … esplaned …");
        sub->final_callback([this] { action_ = [this] { return help_xdp(command_); }; });
    }

    void add_interface() {
        CLI::App* all = app_.add_subcommand("interface", "tunnels by route: add, del, list");
        all->require_subcommand(1);
        const auto change = [&](const std::string& action, const char* help, const char* words) {
            CLI::App* sub = all->add_subcommand(action, help);
            sub->add_option("words", interface_, words)->option_text(words)->required();
            add_json(sub);
            sub->final_callback([this, action] {
                action_ = [this, action] {
                    return change_interface(run_dir_, action, interface_, json_);
                };
            });
        };
        change("add", "make an interface whose routes lead into the tunnels of an if_id",
               "NAME if_id N [mtu M]");
        change("del", "take it away, its addresses and routes with it", "NAME");
        CLI::App* list = all->add_subcommand("list", "those that there are");
        add_json(list);
        list->final_callback([this] {
            action_ = [this] {
                return ask(run_dir_, {"interfaces", nullptr, "interfaces"}, json_);
            };
        });
    }

    void add_trace() {
        CLI::App* sub = app_.add_subcommand("trace", "follow messages, decoded: trace xfrm");
        sub->require_subcommand(1);
        add_stream(sub->add_subcommand(
                       "xfrm", "each message between XFRM clients and esplaned, keys left out"),
                   "trace");
        add_stream(
            app_.add_subcommand("monitor", "what happens to SAs and policies, whoever caused it"),
            "monitor");
    }

    /// Until Ctrl-C or the end of who reads its output.
    void add_stream(CLI::App* sub, const std::string& command) {
        add_json(sub);
        sub->footer("One message after the other, until Ctrl-C.  What is too fast for the reader\n"
                    "is left out and counted; esplaned waits for nobody.");
        sub->final_callback([this, command] {
            action_ = [this, command] { return follow_stream(run_dir_, command, json_); };
        });
    }

    void add_release() {
        CLI::App* sub = app_.add_subcommand(
            "release", "give the devices back to the kernel: no protection from then on");
        add_json(sub);
        sub->final_callback([this] { action_ = [this] { return release(run_dir_, json_); }; });
    }

    void add_pcap() {
        CLI::App* sub = app_.add_subcommand("pcap", "send a capture through the engine, offline");
        sub->add_option("--setup", request_.setup, "shell command: ip xfrm …")
            ->option_text("COMMAND")
            ->required();
        sub->add_option("--direction", direction_, "as seen from this gateway")
            ->option_text("outbound|inbound")
            ->check(CLI::IsMember({"outbound", "inbound"}))
            ->required();
        sub->add_option("--in", request_.input, "pcap or pcapng; Ethernet or raw IP")
            ->option_text("FILE")
            ->required();
        sub->add_option("--out", request_.output, "written in the same form")
            ->option_text("FILE")
            ->required();
        add_json(sub);
        sub->final_callback([this] {
            request_.direction =
                direction_ == "inbound" ? offline_direction::inbound : offline_direction::outbound;
            action_ = [this] { return work_offline(request_, json_); };
        });
    }

    CLI::App app_{"esplane: command line of the user-space IPsec ESP data plane", "esplane"};
    std::string run_dir_ = default_run_dir;
    bool json_ = false;
    bool verbose_ = false;
    std::string sysctl_;                 ///< of sysctl
    std::vector<std::string> command_;   ///< of run
    bool supervised_ = false;            ///< run --seccomp
    std::vector<std::string> interface_; ///< of interface add, del
    std::string direction_;
    offline_request request_;
    std::function<int()> action_;
};

} // namespace

int main(int argc, char** argv) {
    try {
        return command_line().main(argc, argv);
    } catch (const std::exception& e) {
        return report_failure({EINVAL, e.what(), {}});
    }
}
