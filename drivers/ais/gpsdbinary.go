package ais

import (
	"strconv"

	goais "github.com/BertoldVdb/go-ais"
)

// binary writes the types that carry bytes, texts for one station, and the
// management of the radio channel.
func (j *jsonWriter) binary(packet goais.Packet) bool {
	switch p := packet.(type) {
	case goais.AddressedBinaryMessage:
		j.addressed(p.SequenceNumber, p.DestinationID, p.Retransmission)
		j.application(p.ApplicationID, p.BinaryData)
	case goais.BinaryBroadcastMessage:
		j.application(p.ApplicationID, p.BinaryData)
	case goais.BinaryAcknowledge:
		for i, d := range p.Destinations {
			j.num("mmsi"+strconv.Itoa(i+1), int64(d.DestinationID))
		}
	case goais.CoordinatedUTCInquiry:
		j.num("dest_mmsi", int64(p.DestinationID))
	case goais.AddessedSafetyMessage:
		j.addressed(p.SequenceNumber, p.DestinationID, p.Retransmission)
		j.word("text", text(p.Text))
	case goais.SafetyBroadcastMessage:
		j.word("text", text(p.Text))
	case goais.GnssBroadcastBinaryMessage:
		j.place("lon", int64(p.Longitude), coarse)
		j.place("lat", int64(p.Latitude), coarse)
		j.bytes("data", p.Data)
	case goais.SingleSlotBinaryMessage:
		j.slot(p.DestinationIDValid, p.ApplicationIDValid, p.DestinationID, p.ApplicationID, p.Payload)
	case goais.MultiSlotBinaryMessage:
		j.slot(p.DestinationIDValid, p.ApplicationIDValid, p.DestinationID, p.ApplicationID, p.Payload)
		j.num("radio", int64(p.IsItdma())<<19|int64(p.CommunicationState))
	default:
		return j.management(packet)
	}
	return true
}

func (j *jsonWriter) management(packet goais.Packet) bool {
	switch p := packet.(type) {
	case goais.Interrogation:
		j.interrogation(&p)
	case goais.AssignedModeCommand:
		for i, c := range p.Commands {
			n := strconv.Itoa(i + 1)
			j.num("mmsi"+n, int64(c.DestinationID))
			j.num("offset"+n, int64(c.Offset))
			j.num("increment"+n, int64(c.Increment))
		}
	case goais.DataLinkManagementMessage:
		for i, d := range p.Data {
			n := strconv.Itoa(i + 1)
			j.num("offset"+n, int64(d.Offset))
			j.num("number"+n, int64(d.NumberOfSlots))
			j.num("timeout"+n, int64(d.TimeOut))
			j.num("increment"+n, int64(d.Increment))
		}
	case goais.ChannelManagement:
		j.channels(&p)
	case goais.GroupAssignmentCommand:
		j.corner("ne", int64(p.Longitude1), int64(p.Latitude1))
		j.corner("sw", int64(p.Longitude2), int64(p.Latitude2))
		j.num("stationtype", int64(p.StationType))
		j.word("stationtype_text", stationTypeText(p.StationType))
		j.shipType(p.ShipType)
		j.num("interval", int64(p.ReportingInterval))
		j.num("quiet", int64(p.QuietTime))
	default:
		return false
	}
	return true
}

func (j *jsonWriter) addressed(seq uint8, to uint32, retransmit bool) {
	j.num("seqno", int64(seq))
	j.num("dest_mmsi", int64(to))
	j.flag("retransmit", retransmit)
}

func (j *jsonWriter) application(id goais.FieldApplicationIdentifier, b []byte) {
	j.num("dac", int64(id.DesignatedAreaCode))
	j.num("fid", int64(id.FunctionIdentifier))
	j.bytes("data", b)
}

func (j *jsonWriter) slot(addressed, structured bool, to uint32, id goais.FieldApplicationIdentifier, b []byte) {
	j.flag("addressed", addressed)
	j.flag("structured", structured)
	j.num("dest_mmsi", int64(to))
	j.num("app_id", int64(id.DesignatedAreaCode)<<6|int64(id.FunctionIdentifier))
	j.bytes("data", b)
}

func (j *jsonWriter) interrogation(p *goais.Interrogation) {
	j.num("mmsi1", int64(p.Station1Msg1.StationID))
	j.num("type1_1", int64(p.Station1Msg1.MessageID))
	j.num("offset1_1", int64(p.Station1Msg1.SlotOffset))
	j.num("type1_2", int64(p.Station1Msg2.MessageID))
	j.num("offset1_2", int64(p.Station1Msg2.SlotOffset))
	j.num("mmsi2", int64(p.Station2.StationID))
	j.num("type2_1", int64(p.Station2.MessageID))
	j.num("offset2_1", int64(p.Station2.SlotOffset))
}

func (j *jsonWriter) channels(p *goais.ChannelManagement) {
	j.num("channel_a", int64(p.ChannelA))
	j.num("channel_b", int64(p.ChannelB))
	j.num("txrx", int64(p.TxRxMode))
	j.flag("power", p.LowPower)
	if p.IsAddressed {
		j.num("dest1", int64(p.Unicast.AddressStation1))
		j.num("dest2", int64(p.Unicast.AddressStation2))
	} else {
		j.corner("ne", int64(p.Area.Longitude1), int64(p.Area.Latitude1))
		j.corner("sw", int64(p.Area.Longitude2), int64(p.Area.Latitude2))
	}
	j.flag("addressed", p.IsAddressed)
	j.flag("band_a", p.BwA)
	j.flag("band_b", p.BwB)
	j.num("zonesize", int64(p.TransitionalZoneSize))
}

// corner writes a corner of an area; scaled ones are strings in gpsd.
func (j *jsonWriter) corner(name string, lon, lat int64) {
	if !j.scaled {
		j.num(name+"_lon", lon)
		j.num(name+"_lat", lat)
		return
	}
	j.word(name+"_lon", strconv.FormatFloat(float64(lon)/coarse, 'f', 6, 64))
	j.word(name+"_lat", strconv.FormatFloat(float64(lat)/coarse, 'f', 6, 64))
}
