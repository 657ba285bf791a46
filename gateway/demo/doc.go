// Package demo is the simulated field of `haidang demo`: stations, boats and
// an operations centre that speak the real protocols over real sockets to a
// gateway which they know only by its addresses.
//
//   - River and rain stations publish JSON over MQTT with QoS 1, one connection
//     each, and keep what is not acknowledged yet, as a data logger does.
//   - A weather and air station answers Modbus TCP with the register map of the
//     common RS-485 weather stations (profile weather-485).
//   - Thirty fishing boats are heard as AIS sentences (NMEA 0183 over TCP).
//   - An HTTP listener plays the operations centre and acknowledges warnings.
//
// # The story
//
// Everything follows one storm, a function of the time since the start and of
// a seed: rain up to 104.6 mm/h at Nam Đông, then a flood wave like that of
// 2025-10-27 at Kim Long, 0.60 m to 5.05 m and back in about a minute, then a
// calm; the cycle takes 90 s. In each cycle one boat falls silent and one
// leaves its fishing ground. One second of the demo stands for half an hour.
//
// Files holds the configuration that the gateway loads for the demo. It is an
// ordinary configuration folder: what it teaches holds for a real station.
//
// View shows in a terminal what happens.
package demo
