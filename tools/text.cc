// SPDX-License-Identifier: Apache-2.0
#include "tools/text.h"

#include <algorithm>

#include "tools/table.h"

namespace esplane::tools {

using nlohmann::json;

namespace {

/// A text as it is, a number in digits, null as a dash.
std::string cell(const json& value) {
    if (value.is_null()) return "-";
    return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string duration(std::uint64_t seconds) {
    const auto days = seconds / 86400, hours = seconds / 3600 % 24, minutes = seconds / 60 % 60;
    if (days != 0) return std::to_string(days) + "d " + std::to_string(hours) + "h";
    if (hours != 0) return std::to_string(hours) + "h " + std::to_string(minutes) + "m";
    if (minutes != 0) return std::to_string(minutes) + "m " + std::to_string(seconds % 60) + "s";
    return std::to_string(seconds) + "s";
}

std::string text_of_clients(const json& clients) {
    if (clients.is_null()) return "-";
    std::string text = cell(clients.at("connected"));
    for (const auto& [name, says] :
         {std::pair("events_lost", " events lost"), std::pair("replies_lost", " replies lost"),
          std::pair("refused", " refused"), std::pair("broken", " broken off")})
        if (clients.at(name) != 0) text += ", " + cell(clients.at(name)) + says;
    return text;
}

/// Says only what is wrong.
std::string state_text(const json& reply) {
    const json state = reply.value("state", json());
    if (!state.is_object()) return {};
    std::string text;
    if (!state.at("written").get<bool>())
        text += "state     is not written: nothing would survive a restart (see the log)\n";
    if (state.at("lost") != 0)
        text += "state     lost at the start: " + cell(state.at("lost")) + " SAs and policies\n";
    if (state.at("memory_short") != 0)
        text += "state     has no room (tmpfs): some SAs would not survive a restart\n";
    return text;
}

/// Where some was asked for.
std::string memory_text(const json& reply) {
    const json memory = reply.value("memory", json());
    if (!memory.is_object() || memory.at("reserved") == 0) return {};
    std::string text = "memory    " + cell(memory.at("reserved")) + " MiB reserved, " +
                       cell(memory.at("unused")) + " unused";
    if (memory.at("not_huge") != 0)
        text += "; no huge pages for " + cell(memory.at("not_huge")) + " MiB";
    return text + "\n";
}

std::string status_text(const json& reply) {
    const json& policies = reply.at("policies");
    std::string text = "esplaned " + cell(reply.at("version")) + ", process " +
                       cell(reply.at("pid")) + ", up " +
                       duration(reply.at("uptime_s").get<std::uint64_t>()) + "\n";
    text += "xfrm      " + cell(reply.at("xfrm")) + "\n";
    text += "clients   " + text_of_clients(reply.at("clients")) + "\n";
    text += "crypto    " + cell(reply.at("crypto")) + ", GCM kernel " +
            cell(reply.at("gcm_kernel")) + "\n";
    text += "ports     " + cell(reply.at("ports")) + "\n";
    for (const json& p : reply.at("ports_down"))
        text += "          " + cell(p.at("name")) + " is down: " + cell(p.at("why")) + "\n";
    text += "workers   " + cell(reply.at("workers")) + "\n";
    for (const json& worker : reply.at("stuck_workers"))
        text += "          worker " + cell(worker) + " is stuck (`esplane workers`)\n";
    text += "SAs       " + cell(reply.at("sas")) + "\n";
    text += "policies  in " + cell(policies.at("in")) + ", fwd " + cell(policies.at("fwd")) +
            ", out " + cell(policies.at("out")) + "\n";
    text += state_text(reply) + memory_text(reply);
    text += "packets   " + text_of_packets(reply.at("packets")) + "\n";
    return text;
}

std::string sa_flags(const json& sa) {
    std::string flags;
    if (sa.at("esn").get<bool>()) flags += "esn ";
    if (const json& e = sa.at("encapsulation"); !e.is_null())
        flags += "udp:" + cell(e.at("source_port")) + ">" + cell(e.at("destination_port")) + " ";
    if (sa.at("dying").get<bool>()) flags += "dying ";
    if (!sa.at("if_id").is_null()) flags += "if_id " + cell(sa.at("if_id")) + " ";
    if (!sa.at("mark").is_null()) flags += "mark " + cell(sa.at("mark")) + " ";
    if (!sa.at("output_mark").is_null()) flags += "output-mark " + cell(sa.at("output_mark")) + " ";
    if (!sa.at("cpu").is_null()) flags += "cpu " + cell(sa.at("cpu")) + " ";
    if (flags.empty()) return "-";
    flags.pop_back();
    return flags;
}

std::uint64_t errors_of(const json& sa) {
    std::uint64_t total = 0;
    for (const json& count : sa.at("errors"))
        total += count.get<std::uint64_t>();
    return total;
}

std::string sa_text(const json& reply) {
    table t({{"DIR"},
             {"SOURCE"},
             {"DESTINATION"},
             {"SPI"},
             {"REQID", align::right},
             {"STATE"},
             {"ALGORITHM"},
             {"WINDOW", align::right},
             {"PACKETS", align::right},
             {"BYTES", align::right},
             {"ERRORS", align::right},
             {"FLAGS"}});
    for (const json& sa : reply.at("sas"))
        t.add({cell(sa.at("direction")), cell(sa.at("source")), cell(sa.at("destination")),
               cell(sa.at("spi")), cell(sa.at("reqid")), cell(sa.at("state")),
               cell(sa.at("algorithm")), cell(sa.at("replay_window")), cell(sa.at("packets")),
               cell(sa.at("bytes")), std::to_string(errors_of(sa)), sa_flags(sa)});
    return t.empty() ? "no SAs\n" : t.to_string();
}

std::string template_text(const json& policy) {
    std::string text;
    for (const json& t : policy.at("templates")) {
        if (!text.empty()) text += ", ";
        text += cell(t.at("protocol")) + " " + cell(t.at("mode")) + " " + cell(t.at("source")) +
                " > " + cell(t.at("destination")) + " reqid " + cell(t.at("reqid"));
        if (!t.at("spi").is_null()) text += " spi " + cell(t.at("spi"));
        if (t.at("optional").get<bool>()) text += " optional";
    }
    return text.empty() ? "-" : text;
}

/// "tcp 80 > any": what of the upper layer matters.
std::string upper_layer(const json& selector) {
    std::string text = selector.at("protocol").is_null() ? "any" : cell(selector.at("protocol"));
    const json &source = selector.at("source_port"), &destination = selector.at("destination_port");
    if (source.is_null() && destination.is_null()) return text;
    return text + " " + (source.is_null() ? "any" : cell(source)) + " > " +
           (destination.is_null() ? "any" : cell(destination));
}

std::string policy_text(const json& reply) {
    table t({{"DIR"},
             {"PRIORITY", align::right},
             {"INDEX", align::right},
             {"IF_ID", align::right},
             {"MARK"},
             {"ACTION"},
             {"SOURCE"},
             {"DESTINATION"},
             {"PROTOCOL"},
             {"TEMPLATE"}});
    for (const json& p : reply.at("policies")) {
        const json& s = p.at("selector");
        t.add({cell(p.at("direction")), cell(p.at("priority")), cell(p.at("index")),
               cell(p.at("if_id")), cell(p.at("mark")), cell(p.at("action")), cell(s.at("source")),
               cell(s.at("destination")), upper_layer(s), template_text(p)});
    }
    return t.empty() ? "no policies\n" : t.to_string();
}

std::string ports_text(const json& reply) {
    table t({{"PORT"},
             {"KIND"},
             {"DEVICE"},
             {"ROLE"},
             {"STATE"},
             {"MODE"},
             {"RX PACKETS", align::right},
             {"RX BYTES", align::right},
             {"TX PACKETS", align::right},
             {"TX BYTES", align::right},
             {"TX FULL", align::right},
             {"NO BUFFER", align::right},
             {"PUNTED", align::right},
             {"KERNEL DENIED", align::right}});
    for (const json& p : reply.at("ports"))
        t.add({cell(p.at("name")), cell(p.at("kind")), cell(p.at("device")), cell(p.at("role")),
               p.at("up").get<bool>() ? "up" : "down", cell(p.at("mode")), cell(p.at("rx_packets")),
               cell(p.at("rx_bytes")), cell(p.at("tx_packets")), cell(p.at("tx_bytes")),
               cell(p.at("tx_full")), cell(p.at("rx_no_buffer")), cell(p.at("punted")),
               cell(p.at("kernel_denied"))});
    return t.to_string();
}

std::string percent(const json& share) {
    if (share.is_null()) return "-";
    return std::to_string(static_cast<int>(share.get<double>() * 100 + 0.5)) + "%";
}

std::string workers_text(const json& reply) {
    table t({{"WORKER", align::right},
             {"CPU", align::right},
             {"STATE"},
             {"BUSY", align::right},
             {"RECEIVED", align::right},
             {"SENT", align::right},
             {"DROPPED", align::right},
             {"HANDED OUT", align::right},
             {"HANDED IN", align::right},
             {"TIMES STUCK", align::right}});
    for (const json& w : reply.at("workers"))
        t.add({cell(w.at("worker")), cell(w.at("cpu")), cell(w.at("state")), percent(w.at("busy")),
               cell(w.at("received")), cell(w.at("sent")), cell(w.at("dropped")),
               cell(w.at("handed_out")), cell(w.at("handed_in")), cell(w.at("stuck"))});
    return t.to_string();
}

std::string filter_text(const json& reply) {
    table t({{"PACKETS", align::right}, {"BYTES", align::right}, {"RULE"}});
    for (const json& r : reply.at("rules"))
        t.add({cell(r.at("packets")), cell(r.at("bytes")), cell(r.at("rule"))});
    return t.empty() ? "no filter\n" : t.to_string();
}

std::string interfaces_text(const json& reply) {
    table t({{"NAME"},
             {"IF_ID", align::right},
             {"MTU", align::right},
             {"IFINDEX", align::right},
             {"STATE"}});
    for (const json& i : reply.at("interfaces"))
        t.add({cell(i.at("name")), cell(i.at("if_id")), cell(i.at("mtu")), cell(i.at("ifindex")),
               i.at("up").get<bool>() ? "up" : "down"});
    return t.empty() ? "no interfaces\n" : t.to_string();
}

std::string sysctl_text(const json& reply) {
    std::string text;
    for (const auto& [name, value] : reply.at("sysctls").items())
        text += name + " = " + value.dump() + "\n";
    return text;
}

} // namespace

std::string text_of_port_details(const json& reply) {
    table t({{"PORT"}, {"COUNTER"}, {"VALUE", align::right}});
    for (const json& p : reply.at("ports"))
        for (const auto& [name, value] : p.at("extended").items())
            t.add({cell(p.at("name")), name, cell(value)});
    return t.empty() ? "" : "\n" + t.to_string();
}

std::string text_of_reply(const std::string& command, const json& reply) {
    if (command == "status") return status_text(reply);
    if (command == "sa") return sa_text(reply);
    if (command == "policy") return policy_text(reply);
    if (command == "ports") return ports_text(reply);
    if (command == "interfaces") return interfaces_text(reply);
    if (command == "workers") return workers_text(reply);
    if (command == "filter") return filter_text(reply);
    if (command == "sysctl") return sysctl_text(reply);
    const std::string drops = text_of_drops(reply.at("drops"));
    return drops.empty() ? "no drops\n" : drops;
}

std::string text_of_packets(const json& packets) {
    std::string text;
    for (const char* key :
         {"received", "created", "sent", "punted", "dropped", "held", "absorbed", "encrypted",
          "decrypted", "bypassed", "fragmented", "reassembled", "clamped"}) {
        const auto count = packets.at(key).get<std::uint64_t>();
        if (count == 0) continue;
        if (!text.empty()) text += ", ";
        text += std::string(key) + " " + std::to_string(count);
    }
    return text.empty() ? "none" : text;
}

std::string text_of_drops(const json& drops) {
    std::vector<const json*> happened;
    for (const json& d : drops)
        if (d.at("packets").get<std::uint64_t>() != 0) happened.push_back(&d);
    if (happened.empty()) return {};
    std::stable_sort(happened.begin(), happened.end(), [](const json* a, const json* b) {
        return a->at("packets").get<std::uint64_t>() > b->at("packets").get<std::uint64_t>();
    });
    table t({{"REASON"}, {"PACKETS", align::right}, {"MEANING"}});
    for (const json* d : happened)
        t.add({cell(d->at("reason")), cell(d->at("packets")), cell(d->at("text"))});
    return t.to_string();
}

} // namespace esplane::tools
