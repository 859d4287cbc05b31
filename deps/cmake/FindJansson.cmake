# Finds jansson (Debian: libjansson-dev) and defines the target jansson.
find_path(Jansson_INCLUDE_DIR jansson.h)
find_library(Jansson_LIBRARY jansson)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Jansson REQUIRED_VARS Jansson_LIBRARY Jansson_INCLUDE_DIR
    REASON_FAILURE_MESSAGE "install libjansson-dev, or run deps/install.sh build")
mark_as_advanced(Jansson_INCLUDE_DIR Jansson_LIBRARY)
if(Jansson_FOUND AND NOT TARGET jansson)
    add_library(jansson INTERFACE IMPORTED)
    set_target_properties(jansson PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${Jansson_INCLUDE_DIR}"
        INTERFACE_LINK_LIBRARIES "${Jansson_LIBRARY}")
endif()
