# Finds libyaml (Debian: libyaml-dev) and defines the target libyaml.
find_path(Libyaml_INCLUDE_DIR yaml.h)
find_library(Libyaml_LIBRARY yaml)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Libyaml REQUIRED_VARS Libyaml_LIBRARY Libyaml_INCLUDE_DIR
    REASON_FAILURE_MESSAGE "install libyaml-dev, or run deps/install.sh build")
mark_as_advanced(Libyaml_INCLUDE_DIR Libyaml_LIBRARY)
if(Libyaml_FOUND AND NOT TARGET libyaml)
    add_library(libyaml INTERFACE IMPORTED)
    set_target_properties(libyaml PROPERTIES
        INTERFACE_INCLUDE_DIRECTORIES "${Libyaml_INCLUDE_DIR}"
        INTERFACE_LINK_LIBRARIES "${Libyaml_LIBRARY}")
endif()
