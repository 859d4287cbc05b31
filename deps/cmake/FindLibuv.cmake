# Finds libuv (Debian: libuv1-dev) and defines the target libuv.
find_path(Libuv_INCLUDE_DIR uv.h)
find_library(Libuv_LIBRARY uv)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Libuv REQUIRED_VARS Libuv_LIBRARY Libuv_INCLUDE_DIR
    REASON_FAILURE_MESSAGE "install libuv1-dev, or run deps/install.sh build")
mark_as_advanced(Libuv_INCLUDE_DIR Libuv_LIBRARY)
if(Libuv_FOUND AND NOT TARGET libuv)
    add_library(libuv INTERFACE IMPORTED)
    set_target_properties(libuv PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${Libuv_INCLUDE_DIR}"
        INTERFACE_LINK_LIBRARIES "${Libuv_LIBRARY}")
endif()
