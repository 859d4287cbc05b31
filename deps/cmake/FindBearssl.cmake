# Finds BearSSL (Debian: libbearssl-dev) and defines the target bearssl.
find_path(Bearssl_INCLUDE_DIR bearssl.h)
find_library(Bearssl_LIBRARY bearssl)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Bearssl REQUIRED_VARS Bearssl_LIBRARY Bearssl_INCLUDE_DIR
    REASON_FAILURE_MESSAGE "install libbearssl-dev, or run deps/install.sh build")
mark_as_advanced(Bearssl_INCLUDE_DIR Bearssl_LIBRARY)
if(Bearssl_FOUND AND NOT TARGET bearssl)
    add_library(bearssl INTERFACE IMPORTED)
    set_target_properties(bearssl PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${Bearssl_INCLUDE_DIR}"
        INTERFACE_LINK_LIBRARIES "${Bearssl_LIBRARY}")
endif()
