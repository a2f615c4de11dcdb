//! The worked example of docs/ADDING-A-TOOL.md, compiled and run but not live.
