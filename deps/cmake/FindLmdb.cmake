# Finds LMDB (Debian: liblmdb-dev) and defines the target lmdb.
find_path(Lmdb_INCLUDE_DIR lmdb.h)
find_library(Lmdb_LIBRARY lmdb)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Lmdb REQUIRED_VARS Lmdb_LIBRARY Lmdb_INCLUDE_DIR
    REASON_FAILURE_MESSAGE "install liblmdb-dev, or run deps/install.sh build")
mark_as_advanced(Lmdb_INCLUDE_DIR Lmdb_LIBRARY)
if(Lmdb_FOUND AND NOT TARGET lmdb)
    add_library(lmdb INTERFACE IMPORTED)
    set_target_properties(lmdb PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${Lmdb_INCLUDE_DIR}"
        INTERFACE_LINK_LIBRARIES "${Lmdb_LIBRARY}")
endif()
