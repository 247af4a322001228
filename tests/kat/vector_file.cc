// SPDX-License-Identifier: Apache-2.0
#include "tests/kat/vector_file.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <fstream>
#include <stdexcept>

namespace esplane::test {
namespace {

std::string trimmed(const std::string& s) {
    const auto first = s.find_first_not_of(" \t\r");
    if (first == std::string::npos) return {};
    return s.substr(first, s.find_last_not_of(" \t\r") - first + 1);
}

std::string lower(std::string s) {
    std::transform(s.begin(), s.end(), s.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return s;
}

void take_assignment(const std::string& line, std::map<std::string, std::string>& into) {
    const auto equals = line.find('=');
    if (equals == std::string::npos) return;
    into[lower(trimmed(line.substr(0, equals)))] = trimmed(line.substr(equals + 1));
}

} // namespace

std::vector<std::uint8_t> from_hex(const std::string& hex) {
    if (hex.size() % 2 != 0) throw std::invalid_argument("odd number of hex digits: " + hex);
    std::vector<std::uint8_t> out(hex.size() / 2);
    const char* digits = hex.data();
    for (std::uint8_t& byte : out) {
        if (std::from_chars(digits, digits + 2, byte, 16).ptr != digits + 2)
            throw std::invalid_argument("not hex digits: " + hex);
        digits += 2;
    }
    return out;
}

std::vector<std::uint8_t> vector_record::bytes(const std::string& name) const {
    return from_hex(values.at(name));
}

std::vector<vector_record> read_vectors(const std::filesystem::path& file) {
    std::ifstream in(file);
    if (!in) throw std::runtime_error("cannot read " + file.string());
    std::vector<vector_record> records;
    std::map<std::string, std::string> block;
    vector_record current;
    const auto finish = [&] {
        if (!current.id.empty()) records.push_back(current);
        current = {};
    };
    unsigned number = 0;
    for (std::string raw; std::getline(in, raw);) {
        ++number;
        const std::string line = trimmed(raw);
        if (line.empty()) {
            finish();
        } else if (line[0] == '[') {
            finish();
            take_assignment(line.substr(1, line.size() - 2), block);
        } else if (line[0] != '#') {
            if (current.id.empty())
                current = {file.filename().string() + ":" + std::to_string(number), block};
            if (line == "FAIL") current.must_fail = true;
            take_assignment(line, current.values);
        }
    }
    finish();
    return records;
}

} // namespace esplane::test
