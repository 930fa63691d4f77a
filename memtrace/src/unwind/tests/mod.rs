mod files;
mod malformed;
mod rules;
mod synthetic;
