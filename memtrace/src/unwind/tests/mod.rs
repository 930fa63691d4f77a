mod files;
mod loading;
mod malformed;
mod rules;
mod synthetic;
