# Finds xxHash (Debian: libxxhash-dev) and defines the target xxhash. Used as a header: a file defines XXH_INLINE_ALL, which lets the
# compiler specialise it for the short keys of a hash table, and nothing is linked.
find_path(Xxhash_INCLUDE_DIR xxhash.h)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Xxhash REQUIRED_VARS Xxhash_INCLUDE_DIR
    REASON_FAILURE_MESSAGE "install libxxhash-dev, or run deps/install.sh build")
mark_as_advanced(Xxhash_INCLUDE_DIR)
if(Xxhash_FOUND AND NOT TARGET xxhash)
    add_library(xxhash INTERFACE IMPORTED)
    set_target_properties(xxhash PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${Xxhash_INCLUDE_DIR}")
endif()
