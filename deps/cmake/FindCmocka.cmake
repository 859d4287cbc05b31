# Finds cmocka (Debian: libcmocka-dev) and defines the target cmocka.
find_path(Cmocka_INCLUDE_DIR cmocka.h)
find_library(Cmocka_LIBRARY cmocka)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Cmocka REQUIRED_VARS Cmocka_LIBRARY Cmocka_INCLUDE_DIR
    REASON_FAILURE_MESSAGE "install libcmocka-dev, or run deps/install.sh build")
mark_as_advanced(Cmocka_INCLUDE_DIR Cmocka_LIBRARY)
if(Cmocka_FOUND AND NOT TARGET cmocka)
    add_library(cmocka INTERFACE IMPORTED)
    set_target_properties(cmocka PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${Cmocka_INCLUDE_DIR}"
        INTERFACE_LINK_LIBRARIES "${Cmocka_LIBRARY}")
endif()
