// SPDX-License-Identifier: Apache-2.0
#include "tools/shim.h"

#include <algorithm>
#include <cstdlib>
#include <elf.h>
#include <filesystem>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/unit/tools/temporary_directory.h"

namespace esplane::tools {
namespace {

using ::testing::HasSubstr;

/// A 64-bit ELF file with one program header of that type.
std::string elf_with(std::uint32_t type) {
    Elf64_Ehdr file{};
    std::copy_n(ELFMAG, SELFMAG, file.e_ident);
    file.e_ident[EI_CLASS] = ELFCLASS64;
    file.e_phoff = sizeof file;
    file.e_phentsize = sizeof(Elf64_Phdr);
    file.e_phnum = 1;
    Elf64_Phdr segment{};
    segment.p_type = type;
    std::string bytes(reinterpret_cast<const char*>(&file), sizeof file);
    return bytes.append(reinterpret_cast<const char*>(&segment), sizeof segment);
}

TEST(IsStatic, LooksForAnInterpreter) {
    const temporary_directory directory;
    EXPECT_TRUE(is_static(directory.write("static", elf_with(PT_LOAD))));
    EXPECT_FALSE(is_static(directory.write("dynamic", elf_with(PT_INTERP))));
    EXPECT_FALSE(is_static(directory.write("script", "#!/bin/sh\n")));
    EXPECT_FALSE(is_static(directory.write("short", elf_with(PT_LOAD).substr(0, 80))));
    EXPECT_FALSE(is_static(directory.path() + "/absent"));
}

TEST(IsStatic, LooksProgramsUpAsTheShellDoes) {
    const temporary_directory directory;
    const std::string program = directory.write("tool", elf_with(PT_LOAD));
    ::chmod(program.c_str(), 0755);
    const std::string before = std::getenv("PATH");
    ::setenv("PATH", ("/nonexistent:" + directory.path()).c_str(), 1);
    EXPECT_TRUE(is_static("tool"));
    EXPECT_FALSE(is_static("absent"));
    ::setenv("PATH", before.c_str(), 1);
}

TEST(ConfiningProfile, IsNamedWhereItLacksOurRules) {
    const temporary_directory directory;
    const std::string program = directory.write("client", "");
    std::string name = std::filesystem::canonical(program).string().substr(1);
    std::ranges::replace(name, '/', '.');
    EXPECT_EQ(confining_profile(program, directory.path()), "");
    directory.write(name, "");
    EXPECT_EQ(confining_profile(program, directory.path()), name);
    std::filesystem::create_directory(directory.path() + "/local");
    directory.write("local/" + name, "  #include <abstractions/esplane>\n");
    EXPECT_EQ(confining_profile(program, directory.path()), "");
}

TEST(RunCommand, WithoutADaemonSaysHowToStartOne) {
    const temporary_directory directory;
    const error e = run_command(directory.path(), {"true"});
    EXPECT_THAT(e.text, HasSubstr("start it with `esplaned --run-dir " + directory.path()));
}

TEST(RunCommand, WithoutACommandSaysSo) {
    EXPECT_THAT(run_command("/nonexistent", {}).text, HasSubstr("no command"));
}

} // namespace
} // namespace esplane::tools
