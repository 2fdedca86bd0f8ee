"""Starts `utr ros`: ros2 launch utr_bringup utr.launch.py image:=/camera/image_raw question:="Is anybody on the floor?"

Every argument is a flag of `utr ros` by the same name; one that is left empty keeps the program's default. `flags` takes whatever
else there is, as on a command line: flags:="--question 'Is the door open?' --fps 4". The program is no ROS package and is found in PATH, or where
`utr:=` says.
"""

import os
import shlex

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration

VALUES = {
    "image": "the topic with sensor_msgs/msg/Image to read",
    "source": "a camera or clip to read in the place of a topic, such as csi://0",
    "bundle": "the folder of the model",
    "question": "a standing question; further ones go into flags",
    "every": "time between two times that it is asked, such as 2s",
    "when": "only answers that begin with this count",
    "frames": "frames of the window, 1 to 32",
    "name": "the node's name",
    "namespace": "the node's namespace",
    "services": "enhanced for Fast DDS, cyclone for Cyclone DDS, basic for Connext",
}
SWITCHES = {"on_change": "true: only answers that differ from the last one that counted"}
# What RMW_IMPLEMENTATION says about how services travel.
SERVICES = {"rmw_cyclonedds_cpp": "cyclone", "rmw_connextdds": "basic"}


def command(values):
    """The command line for the launch arguments `values`, a name to a text."""
    words = [values["utr"], "ros"]
    for name in VALUES:
        if values[name]:
            # In one word, so that a value that begins with a dash is none of the program's flags.
            words.append(f"--{name}={values[name]}")
    for name in SWITCHES:
        if values[name].lower() not in ("", "true", "false"):
            raise ValueError(f"{name}:={values[name]}: give true or false")
        if values[name].lower() == "true":
            words.append(f"--{name.replace('_', '-')}")
    return words + shlex.split(values["flags"])


def start(context):
    names = [*VALUES, *SWITCHES, "utr", "flags", "respawn"]
    values = {name: LaunchConfiguration(name).perform(context) for name in names}
    respawn = values["respawn"].lower() == "true"
    return [ExecuteProcess(cmd=command(values), name="utr", output="screen", respawn=respawn, respawn_delay=2.0)]


def generate_launch_description():
    services = SERVICES.get(os.environ.get("RMW_IMPLEMENTATION", ""), "")
    defaults = {"services": services}
    arguments = [
        DeclareLaunchArgument(name, default_value=defaults.get(name, ""), description=text)
        for name, text in {**VALUES, **SWITCHES}.items()
    ]
    arguments += [
        DeclareLaunchArgument("utr", default_value="utr", description="the program, built with --features ros2"),
        DeclareLaunchArgument("flags", default_value="", description="further flags of `utr ros`"),
        DeclareLaunchArgument("respawn", default_value="true", description="whether it is started again when it ends"),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
