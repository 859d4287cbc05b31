# Finds nettle (Debian: nettle-dev) and defines the target nettle.
find_path(Nettle_INCLUDE_DIR nettle/sha2.h)
find_library(Nettle_LIBRARY nettle)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Nettle REQUIRED_VARS Nettle_LIBRARY Nettle_INCLUDE_DIR
    REASON_FAILURE_MESSAGE "install nettle-dev, or run deps/install.sh build")
mark_as_advanced(Nettle_INCLUDE_DIR Nettle_LIBRARY)
if(Nettle_FOUND AND NOT TARGET nettle)
    add_library(nettle INTERFACE IMPORTED)
    set_target_properties(nettle PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${Nettle_INCLUDE_DIR}"
        INTERFACE_LINK_LIBRARIES "${Nettle_LIBRARY}")
endif()
