// SPDX-License-Identifier: Apache-2.0
#include "tools/trace_text.h"

#include <algorithm>
#include <cstring>
#include <ctime>
#include <string_view>

namespace esplane::tools {

using json = nlohmann::ordered_json;

namespace {

constexpr const char* indent = "    ";

std::string cell(const json& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
}

/// Local time of the day.
std::string clock_text(const json& time_us) {
    const auto us = time_us.get<std::uint64_t>();
    const auto seconds = static_cast<std::time_t>(us / 1'000'000);
    std::tm local{};
    ::localtime_r(&seconds, &local);
    char text[32];
    std::snprintf(text, sizeof text, "%02d:%02d:%02d.%06u", local.tm_hour, local.tm_min,
                  local.tm_sec, static_cast<unsigned>(us % 1'000'000));
    return text;
}

std::string lost_text(const json& lost) {
    return "(" + cell(lost) + " lost: this reader was too slow)\n";
}

// Messages

bool says_nothing(const json& value) {
    constexpr std::string_view nothing[] = {"",   "0x0",     "0x00000000", "infinite",
                                            "::", "0.0.0.0", "unspec",     "any"};
    if (value.is_number()) return value == 0;
    if (value.is_string()) return std::ranges::count(nothing, value.get<std::string>()) != 0;
    if (value.is_structured()) return std::ranges::all_of(value, says_nothing);
    return value.is_null();
}

std::string inline_text(const json& value);

/// "name value, name value": the members, without what says nothing.
std::string members_text(const json& object) {
    std::string text;
    for (const auto& [name, value] : object.items())
        if (!says_nothing(value))
            text += (text.empty() ? "" : ", ") + name + " " + inline_text(value);
    return text;
}

std::string inline_text(const json& value) {
    if (value.is_object()) return "(" + members_text(value) + ")";
    if (!value.is_array()) return cell(value);
    std::string text;
    for (const json& one : value)
        text += (text.empty() ? "" : "|") + inline_text(one);
    return text;
}

/// A structure on a line of its own, plain fields together on one.
std::string fixed_text(const json& fixed) {
    std::string text;
    json plain = json::object();
    for (const auto& [name, value] : fixed.items()) {
        if (!value.is_object())
            plain[name] = value;
        else if (!says_nothing(value))
            text += indent + name + ": " + members_text(value) + "\n";
    }
    const std::string rest = members_text(plain);
    return rest.empty() ? text : text + indent + rest + "\n";
}

std::string attribute_text(const json& attribute) {
    const json& value = attribute.at("value");
    const std::string name = indent + attribute.at("name").get<std::string>();
    const bool several = value.is_array() && !value.empty() && value.front().is_object();
    if (several) {
        std::string text;
        for (const json& one : value)
            text += name + ": " + members_text(one) + "\n";
        return text;
    }
    const std::string content = value.is_object() ? members_text(value) : inline_text(value);
    return name + (content.empty() ? "" : ": " + content) + "\n";
}

/// "error: File exists"; of an acknowledgement "done".
std::string outcome_text(const json& fixed) {
    const auto code = fixed.at("error").get<std::int64_t>();
    if (code == 0) return std::string(indent) + "done\n";
    return std::string(indent) + "error: " + std::strerror(static_cast<int>(-code)) + " (" +
           std::to_string(code) + ")\n";
}

/// The request that an error repeats: it stands above.
std::string request_text(const json& request) {
    return std::string(indent) + "of " + cell(request.at("type")) + " seq " +
           cell(request.at("seq")) + "\n";
}

std::string body_text(const json& message) {
    const json& fixed = message.at("fixed");
    std::string text = fixed.contains("error") ? outcome_text(fixed) : fixed_text(fixed);
    if (const auto request = message.find("request"); request != message.end())
        text += request_text(*request);
    for (const json& attribute : message.at("attributes"))
        text += attribute_text(attribute);
    if (const auto unknown = message.find("unknown_bytes"); unknown != message.end())
        text += indent + cell(*unknown) + " bytes that are no attribute\n";
    return text;
}

std::string who_text(const json& message) {
    if (message.at("pid").is_null()) return "";
    const json& command = message.at("command");
    return (command.is_null() ? "?" : cell(command)) + "[" + cell(message.at("pid")) + "] ";
}

// Events

/// "10.1.0.1 -> 10.1.0.2 spi 0x00001001 reqid 1 tunnel AES-GCM-16-256"
std::string sa_text(const json& sa) {
    std::string text = cell(sa.at("source")) + " -> " + cell(sa.at("destination")) + " spi " +
                       cell(sa.at("spi")) + " reqid " + cell(sa.at("reqid")) + " " +
                       cell(sa.at("mode"));
    for (const char* const also : {"algorithm", "direction"})
        if (!sa.at(also).is_null()) text += " " + cell(sa.at(also));
    for (const char* const also : {"if_id", "mark"})
        if (!sa.at(also).is_null()) text += std::string(" ") + also + " " + cell(sa.at(also));
    return text;
}

/// "out protect 10.0.0.0/24 -> 10.2.0.0/24 priority 100 index 9"
std::string policy_text(const json& p) {
    const json& s = p.at("selector");
    std::string text = cell(p.at("direction")) + " " + cell(p.at("action")) + " " +
                       cell(s.at("source")) + " -> " + cell(s.at("destination"));
    for (const char* const also : {"protocol", "source_port", "destination_port"})
        if (!s.at(also).is_null()) text += std::string(" ") + also + " " + cell(s.at(also));
    text += " priority " + cell(p.at("priority")) + " index " + cell(p.at("index"));
    for (const char* const also : {"if_id", "mark"})
        if (!p.at(also).is_null()) text += std::string(" ") + also + " " + cell(p.at(also));
    return text;
}

/// "sa_added": as a sentence begins.
std::string event_words(const json& event) {
    std::string name = event.at("event").get<std::string>();
    std::ranges::replace(name, '_', ' ');
    if (name.starts_with("sa ") || name.starts_with("sas ")) name.replace(0, 2, "SA");
    if (const auto hard = event.find("hard"); hard != event.end())
        name = (hard->get<bool>() ? "hard: " : "soft: ") + name;
    return name;
}

/// What no other part of the line says.
std::string details_text(const json& event) {
    std::string text;
    for (const auto& [name, value] : event.items()) {
        constexpr std::string_view said[] = {"time_us", "event", "hard", "sa", "policy", "by"};
        if (std::ranges::count(said, name) != 0 || says_nothing(value)) continue;
        text += " " + name + " " + inline_text(value);
    }
    return text;
}

} // namespace

std::string text_of_message(const json& message) {
    if (message.contains("lost")) return lost_text(message["lost"]);
    std::string head = clock_text(message.at("time_us")) + " " + who_text(message) +
                       cell(message.at("way")) + " " + cell(message.at("type")) + " seq " +
                       cell(message.at("seq"));
    const std::string flags = inline_text(message.at("flags"));
    if (!flags.empty()) head += " " + flags;
    return head + "\n" + body_text(message);
}

std::string text_of_event(const json& event) {
    if (event.contains("lost")) return lost_text(event["lost"]);
    std::string text = clock_text(event.at("time_us")) + " " + event_words(event);
    if (event.contains("sa")) text += ": " + sa_text(event["sa"]);
    if (event.contains("policy")) text += ": " + policy_text(event["policy"]);
    text += details_text(event);
    if (const auto by = event.find("by"); by != event.end() && !says_nothing(*by))
        text += " (" + members_text(*by) + ")";
    return text + "\n";
}

} // namespace esplane::tools
