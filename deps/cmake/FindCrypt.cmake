# Finds crypt (Debian: libcrypt-dev) and defines the target crypt.
find_path(Crypt_INCLUDE_DIR crypt.h)
find_library(Crypt_LIBRARY crypt)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Crypt REQUIRED_VARS Crypt_LIBRARY Crypt_INCLUDE_DIR
    REASON_FAILURE_MESSAGE "install libcrypt-dev, or run deps/install.sh build")
mark_as_advanced(Crypt_INCLUDE_DIR Crypt_LIBRARY)
if(Crypt_FOUND AND NOT TARGET crypt)
    add_library(crypt INTERFACE IMPORTED)
    set_target_properties(crypt PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${Crypt_INCLUDE_DIR}"
        INTERFACE_LINK_LIBRARIES "${Crypt_LIBRARY}")
endif()
