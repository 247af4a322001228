// SPDX-License-Identifier: Apache-2.0
#include "bench/plot.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>

namespace esplane::bench {

namespace {

constexpr double width = 820, left = 110, bar_height = 9, gap = 8, head = 34, longest = 620;

struct series {
    const char* name;
    const char* colour;
    double bar_group::*value;
};
constexpr std::array<series, 3> all_series{{{"esplane, whole path", "#1b6ca8", &bar_group::path},
                                            {"librte_ipsec, its best", "#e08e45", &bar_group::rte},
                                            {"intel-ipsec-mb, bare", "#9a9a9a", &bar_group::bare}}};

double height_of(const bar_group& g) {
    const auto bars =
        std::ranges::count_if(all_series, [&](const series& s) { return g.*s.value != 0; });
    return static_cast<double>(bars) * bar_height + gap;
}

double height_of(const chart& c) {
    double h = head;
    for (const bar_group& g : c.groups)
        h += height_of(g);
    return h + gap;
}

void text(std::ofstream& out, double x, double y, const std::string& what, const char* more = "") {
    out << "<text x='" << x << "' y='" << y << "' " << more << ">" << what << "</text>\n";
}

void bar(std::ofstream& out, double y, double length, double ns, const char* colour) {
    char label[16];
    std::snprintf(label, sizeof label, "%.0f", ns);
    out << "<rect x='" << left << "' y='" << y << "' width='" << length << "' height='"
        << bar_height - 1 << "' fill='" << colour << "'/>\n";
    text(out, left + length + 4, y + bar_height - 1.5, label, "font-size='9'");
}

void draw(std::ofstream& out, const chart& c, double y) {
    double most = 1;
    for (const bar_group& g : c.groups)
        most = std::max({most, g.path, g.rte, g.bare});
    text(out, 8, y + 18, c.title + ", ns per packet", "font-weight='bold'");
    y += head;
    for (const bar_group& g : c.groups) {
        text(out, left - 8, y + bar_height, g.name, "text-anchor='end'");
        for (const series& s : all_series) {
            if (g.*s.value == 0) continue;
            bar(out, y, g.*s.value / most * longest, g.*s.value, s.colour);
            y += bar_height;
        }
        y += gap;
    }
}

} // namespace

bool write_svg(const std::vector<chart>& charts, const std::string& file) {
    double height = head;
    for (const chart& c : charts)
        height += height_of(c);
    std::ofstream out(file);
    out << "<svg xmlns='http://www.w3.org/2000/svg' width='" << width << "' height='" << height
        << "' font-family='sans-serif' font-size='11'>\n"
        << "<rect width='100%' height='100%' fill='white'/>\n";
    double x = left;
    for (const series& s : all_series) {
        out << "<rect x='" << x << "' y='10' width='10' height='10' fill='" << s.colour << "'/>\n";
        text(out, x + 14, 19, s.name);
        x += 180;
    }
    double y = head;
    for (const chart& c : charts) {
        draw(out, c, y);
        y += height_of(c);
    }
    out << "</svg>\n";
    if (out.good()) return true;
    std::fprintf(stderr, "bench engine: %s cannot be written\n", file.c_str());
    return false;
}

} // namespace esplane::bench
