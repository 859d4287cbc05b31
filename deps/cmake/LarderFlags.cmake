# The target larder_flags: how every C file of the project is compiled and linked, whatever the build type.

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
# Everything ends in a program, so -fPIE and not -fPIC: calls between files can be direct.
add_compile_options(-fPIE)
add_link_options(-pie)

# -D_FORTIFY_SOURCE needs an optimised build and hides overflows from the sanitizers' own interceptors: Release only. Checks
# (MUST, SOFT) are on in every build type, so none of them defines NDEBUG.
set(CMAKE_C_FLAGS_RELEASE "-O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fstack-clash-protection")
set(CMAKE_EXE_LINKER_FLAGS_RELEASE "-Wl,-z,relro,-z,now,-z,noexecstack")
set(CMAKE_C_FLAGS_ASAN "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all")
set(CMAKE_EXE_LINKER_FLAGS_ASAN "-fsanitize=address,undefined")
set(CMAKE_C_FLAGS_TSAN "-O1 -g -fsanitize=thread")
set(CMAKE_EXE_LINKER_FLAGS_TSAN "-fsanitize=thread")

add_library(larder_flags INTERFACE)
target_include_directories(larder_flags INTERFACE "${CMAKE_SOURCE_DIR}/src")
target_compile_definitions(larder_flags INTERFACE _GNU_SOURCE _FILE_OFFSET_BITS=64)
target_compile_options(larder_flags INTERFACE
    -Wall -Wextra -Werror -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wvla -Wformat=2
    -fno-omit-frame-pointer
    # Failed checks name src/room/file.c, wherever the build stood.
    "-fmacro-prefix-map=${CMAKE_SOURCE_DIR}/=")
# A library that no object needs is left out of the program.
target_link_options(larder_flags INTERFACE -Wl,--as-needed)

# The program is optimised across files (a tenth of the time of a small hit, bench/README.md): the target that has the property
# LARDER_LTO. The objects hold ordinary code as well, so the tests and benchmarks link as quickly as ever.
if(CMAKE_BUILD_TYPE STREQUAL "Release" AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
    target_compile_options(larder_flags INTERFACE -flto=auto -ffat-lto-objects)
    target_link_options(larder_flags INTERFACE $<IF:$<BOOL:$<TARGET_PROPERTY:LARDER_LTO>>,-flto=auto,-fno-lto>)
endif()

if(LARDER_FUZZ)
    if(NOT CMAKE_C_COMPILER_ID STREQUAL "Clang")
        message(FATAL_ERROR "LARDER_FUZZ=ON needs clang (libFuzzer); configure with -DCMAKE_C_COMPILER=clang")
    endif()
    if(NOT CMAKE_BUILD_TYPE STREQUAL "Asan")
        message(FATAL_ERROR "LARDER_FUZZ=ON needs CMAKE_BUILD_TYPE=Asan: a fuzzer without sanitizers misses most of what it hits")
    endif()
    target_compile_options(larder_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
